"""Sound files, read and written with libsndfile, with errors of reading as `AudioError`; resampling with soxr."""

from __future__ import annotations

import os
import struct
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
_RIFF_HEADER = 12  # bytes: "RIFF", the size of the file, "WAVE"
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's value for an unknown number of frames, as of a FLAC stream


@contextmanager
def open_sound(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a sound file for reading.

    Raises `AudioError` if opening it or any read in the block fails, or if its header does not give its length.
    """
    import soundfile

    if not path.is_file():
        raise AudioError(f"{path}: there is no such sound file.")
    try:
        file = soundfile.SoundFile(path)
    except UnicodeEncodeError as error:
        raise AudioError(f"{str(path)!a}: the name of this file is not UTF-8; rename it.") from error
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless .raw files
        reason = getattr(error, "error_string", error)  # the message of a LibsndfileError repeats the path
        raise AudioError(f"{path} is not a sound file that can be read (WAV, FLAC, OGG, MP3): {reason}") from error
    with file:
        if file.frames == _UNKNOWN_LENGTH:
            raise AudioError(f"{path}: its header does not say how long it is; convert the file again")
        try:
            yield file
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{path}: the sound file is damaged, decoding it fails: {error.error_string}") from error


def read_blocks(file: soundfile.SoundFile, frames: int) -> Iterator[npt.NDArray[np.float32]]:
    """Read up to `frames` frames from the current position in blocks `[n, channels]`; stop where the file ends.

    `SoundFile.blocks` is not used because it does not notice a file that ends early: it yields uninitialized memory.
    """
    while frames > 0:
        block = file.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        yield block
        frames -= len(block)


def erase_time_of_peak(path: Path) -> None:
    """Set the time in a WAV file's PEAK chunk to zero, so that equal samples give equal files.

    libsndfile writes this chunk, with the loudest sample and the time of writing, before the samples of every file with
    float samples. A file without the chunk stays as it is.
    """
    with path.open("r+b") as file:
        file.seek(_RIFF_HEADER)
        while len(header := file.read(8)) == 8 and not header.startswith(b"data"):
            name, size = struct.unpack("<4sI", header)
            if name == b"PEAK":
                file.seek(4, os.SEEK_CUR)  # behind the version
                file.write(bytes(4))
                return
            file.seek(size + size % 2, os.SEEK_CUR)  # chunks begin at even places


def resample(audio: npt.NDArray[np.float32], rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """Resample mono audio `[T]` to `[T * target_rate / rate]`, rounded."""
    if rate == target_rate:
        return audio
    import soxr

    resampled: npt.NDArray[np.float32] = soxr.resample(audio, rate, target_rate)
    return resampled
