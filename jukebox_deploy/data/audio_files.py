"""Songs as mono audio at the model's rate: a stretch of a file, or all of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jukebox_deploy.errors import AudioError
from jukebox_deploy.sound_files import open_sound, read_blocks, resample

if TYPE_CHECKING:
    import soundfile

Audio = npt.NDArray[np.float32]

_MARGIN_SECONDS = 0.05
"""Sound on either side that the resampling filter is given; its response is below rounding long before."""


def read_stretch(path: Path, sample_rate: int, start: int, length: int, weights: Audio | None = None) -> Audio:
    """Read samples `start` to `start + length - 1` of a song at a rate, mono float32 `[length]`.

    The result is what lies there in the whole song at that rate, up to float rounding.

    Args:
        path: the sound file.
        sample_rate: of the result, and of `start` and `length`.
        start: the first sample.
        length: number of samples.
        weights: `[channels]`, what each channel is multiplied with before they are added; default:
            equal parts.

    Raises:
        AudioError: for a file that cannot be read or decoded, ends before, or is not finite there.
    """
    with open_sound(path) as file:
        # Only these frames fall exactly on a sample of the other rate.
        common = math.gcd(file.samplerate, sample_rate)
        frames, samples = file.samplerate // common, sample_rate // common
        margin = 0 if frames == samples else round(_MARGIN_SECONDS * sample_rate)
        first = max(start - margin, 0) // samples
        last = min(-(-(start + length + margin) // samples) * frames, file.frames)
        file.seek(first * frames)
        audio = resample(_read_mono(file, last - first * frames, weights), file.samplerate, sample_rate)
    return _checked(path, audio[start - first * samples :][:length], length)


def read_song(path: Path, sample_rate: int) -> Audio:
    """Read a whole song at a rate, mono float32 `[T]`, all channels in equal parts.

    Raises:
        AudioError: for a file that cannot be read or decoded, ends before its header says, or is not finite.
    """
    with open_sound(path) as file:
        length = file.frames * sample_rate // file.samplerate
        audio = resample(_read_mono(file, file.frames), file.samplerate, sample_rate)
    return _checked(path, audio[:length], length)


def _read_mono(file: soundfile.SoundFile, frames: int, weights: Audio | None = None) -> Audio:
    """Up to that many frames from here on, mono; in blocks, so that the channels are never all in memory."""
    if weights is None:
        weights = np.full(file.channels, 1 / file.channels, np.float32)
    return np.concatenate([np.zeros(0, np.float32), *(block @ weights for block in read_blocks(file, frames))])


def _checked(path: Path, audio: Audio, length: int) -> Audio:
    if len(audio) < length:
        raise AudioError(f"{path}: cut off, {length - len(audio)} samples are missing; copy the file again.")
    if not np.isfinite(audio).all():
        raise AudioError(f"{path}: samples that are not finite (NaN or infinity); replace the file.")
    return audio
