"""Sound files through libsndfile, whose errors become sentences, and other sample rates through soxr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jukebox_deploy.errors import AudioError

if TYPE_CHECKING:
    import soundfile

_BLOCK = 1 << 18  # frames


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file for reading; `AudioError` if that fails, or anything that the body reads from it."""
    import soundfile

    if not path.is_file():
        raise AudioError(f"{path}: there is no such sound file.")
    try:
        file = soundfile.SoundFile(path)
    except UnicodeEncodeError as error:
        raise AudioError(f"{str(path)!a}: the name of this file is not UTF-8; rename it.") from error
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless .raw files
        reason = getattr(error, "error_string", error)  # libsndfile's would name the file again
        raise AudioError(f"{path} is not a sound file that can be read (WAV, FLAC, OGG, MP3): {reason}") from error
    with file:
        try:
            yield file
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: the sound file is damaged, decoding it fails: {error.error_string}") from error


def read_blocks(file: soundfile.SoundFile, frames: int) -> Iterator[npt.NDArray[np.float32]]:
    """Read up to so many frames from here on in blocks `[n, channels]`, fewer where the file ends.

    `SoundFile.blocks` does not notice an early end: it gives whatever was in memory instead.
    """
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        yield block
        frames -= len(block)


def resample(audio: npt.NDArray[np.float32], rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Bring mono audio `[T]` to another rate; `[T * target_rate / rate]`, rounded."""
    if rate == target_rate:
        return audio
    import soxr

    resampled: npt.NDArray[np.float32] = soxr.resample(audio, rate, target_rate)
    return resampled
