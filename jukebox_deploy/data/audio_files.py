"""Reading of songs as mono audio at the model's sample rate, in part or as a whole."""

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
"""Margin on either side of a stretch for the resampling filter, whose response decays below rounding much sooner."""


def read_stretch(path: Path, sample_rate: int, start: int, length: int) -> Audio:
    """Read samples `start` to `start + length - 1` of a song as the mean of its channels, float32 `[length]`.

    The result equals that part of the whole song at the sample rate, up to float rounding.

    Args:
        path: the sound file.
        sample_rate: the rate of the result, and of `start` and `length`.
        start: the first sample.
        length: number of samples.

    Raises:
        AudioError: if the file cannot be read or decoded, ends too early, or has NaN or infinite samples there.
    """
    with open_sound(path) as file:
        # Frame `first * frames` of the file coincides exactly with sample `first * samples` of the result.
        common = math.gcd(file.samplerate, sample_rate)
        frames, samples = file.samplerate // common, sample_rate // common
        margin = 0 if frames == samples else round(_MARGIN_SECONDS * sample_rate)
        first = max(start - margin, 0) // samples
        last = min(-(-(start + length + margin) // samples) * frames, file.frames)
        file.seek(first * frames)
        audio = resample(_read_mono(file, last - first * frames), file.samplerate, sample_rate)
    return _checked(path, audio[start - first * samples :][:length], length)


def read_song(path: Path, sample_rate: int) -> Audio:
    """Read a whole song at a sample rate as the mean of its channels, float32 `[T]`.

    Raises:
        AudioError: if the file cannot be read or decoded, is shorter than its header says, or has NaN or infinite
            samples.
    """
    with open_sound(path) as file:
        length = file.frames * sample_rate // file.samplerate
        audio = resample(_read_mono(file, file.frames), file.samplerate, sample_rate)
    return _checked(path, audio[:length], length)


def _read_mono(file: soundfile.SoundFile, frames: int) -> Audio:
    """Read up to `frames` frames from the current position as mono.

    It is done in blocks, so that only the mean of the channels is ever in memory as a whole.
    """
    weights = np.full(file.channels, 1 / file.channels, np.float32)
    return np.concatenate([np.zeros(0, np.float32), *(block @ weights for block in read_blocks(file, frames))])


def _checked(path: Path, audio: Audio, length: int) -> Audio:
    if len(audio) < length:
        raise AudioError(f"{path}: the file is cut off, {length - len(audio)} samples are missing; copy it again.")
    if not np.isfinite(audio).all():
        raise AudioError(f"{path}: the file has samples that are not finite (NaN or infinity); replace it.")
    return audio
