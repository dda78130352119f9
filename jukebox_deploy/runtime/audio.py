"""Sound files in and out: prompts as mono float32 at the model's rate, songs as WAV files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.errors import AudioError
from jukebox_deploy.files import atomic_path
from jukebox_deploy.sound_files import open_sound, resample

if TYPE_CHECKING:
    import soundfile

_BLOCK = 1 << 16  # samples handled at once while writing


class SampleFormat(StrEnum):
    """How the samples of a WAV file are stored."""

    FLOAT = "float"  # 32-bit float, the decoder's numbers as they are
    PCM_16 = "pcm16"  # 16-bit integers, scaled down where the decoder went beyond [-1, 1]

    @property
    def subtype(self) -> str:
        """The name libsndfile has for it."""
        return {"float": "FLOAT", "pcm16": "PCM_16"}[self.value]


@dataclass(frozen=True)
class WavReport:
    """What was written."""

    path: Path
    samples: int
    sample_rate: int
    peak: float  # largest magnitude before scaling
    scale: float  # what every sample was multiplied with; 1.0 = untouched

    @property
    def seconds(self) -> float:
        """Length of the file."""
        return self.samples / self.sample_rate


def read_prompt(path: Path, sample_rate: int, hop_length: int, seconds: float | None = None) -> np.ndarray:
    """Read a sound file as a prompt: mono float32 `[samples]`, cut to a multiple of `hop_length`.

    Channels are averaged, other rates resampled, and with `seconds` only the beginning is kept.
    `hop_length` is that of the top level: a prompt is whole codes at every level (specification 12.4).
    Raises `AudioError` for files that are missing, no sound, not finite, silent or shorter than one code.
    """
    channels, rate = _read_file(path, seconds)
    if not np.isfinite(channels).all():
        raise AudioError(f"{path}: the prompt holds samples that are not finite (NaN or infinity); give a clean file.")
    audio = resample(channels.mean(axis=1), rate, sample_rate)
    audio = audio[: len(audio) // hop_length * hop_length]
    if len(audio) == 0:
        found, needed = len(channels) / rate, hop_length / sample_rate
        raise AudioError(
            f"{path}: the prompt lasts {found * 1000:.2f} ms, less than one top code of {needed * 1000:.2f} ms; "
            "give a longer one."
        )
    if not audio.any():
        raise AudioError(f"{path}: the prompt is silent, every sample is zero; give a file with sound in it.")
    return audio


def _read_file(path: Path, seconds: float | None) -> tuple[np.ndarray, int]:
    """Samples `[frames, channels]` as stored, and their rate."""
    with open_sound(path) as file:
        frames = -1 if seconds is None else round(seconds * file.samplerate)
        channels = file.read(frames, dtype="float32", always_2d=True)
        rate = file.samplerate
    if len(channels) == 0:
        raise AudioError(f"{path}: the prompt is empty, it holds no samples.")
    return channels, rate


class WavWriter:
    """Takes the audio of one file in chunks; `writing_wav` makes it."""

    def __init__(self, path: Path, sample_rate: int, file: soundfile.SoundFile) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.samples = 0
        self.peak = 0.0
        self.scale = 1.0
        self._file = file

    def write(self, chunk: np.ndarray) -> None:
        """Append mono samples `[samples]`; `AudioError` if one of them is not a number."""
        if not np.isfinite(chunk).all():
            raise AudioError(
                f"{self.path}: the audio is not finite between samples {self.samples} and "
                f"{self.samples + len(chunk)}; nothing was written."
            )
        self._file.write(chunk)
        self.samples += len(chunk)
        self.peak = max(self.peak, float(np.abs(chunk).max(initial=0.0)))

    def report(self) -> WavReport:
        """What was written; complete when the file is."""
        return WavReport(self.path, self.samples, self.sample_rate, self.peak, self.scale)


@contextmanager
def writing_wav(path: Path, sample_rate: int, sample_format: SampleFormat = SampleFormat.FLOAT) -> Iterator[WavWriter]:
    """Open a mono WAV file for writing in chunks; it appears whole at the end, or not at all.

    16-bit files are scaled as a whole by `1 / peak` if a sample exceeds 1; the report tells.
    Raises `AudioError` when the file cannot be written.
    """
    import soundfile

    try:
        with atomic_path(path) as temporary:
            # Float at first: the peak is known only at the end.
            with _open_to_write(temporary, sample_rate, SampleFormat.FLOAT) as file:
                writer = WavWriter(path, sample_rate, file)
                yield writer
            if sample_format is SampleFormat.PCM_16:
                writer.scale = 1.0 / max(writer.peak, 1.0)
                _convert_to_pcm(temporary, writer.scale)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: the sound file could not be written ({error}). Make room and try again.") from error


def _open_to_write(path: Path, sample_rate: int, sample_format: SampleFormat) -> soundfile.SoundFile:
    import soundfile

    return soundfile.SoundFile(path, "w", sample_rate, 1, sample_format.subtype, format="WAV")


def _convert_to_pcm(path: Path, scale: float) -> None:
    """Turn a float file into a 16-bit one, block by block, so that memory does not grow with the song."""
    import soundfile

    converted = path.with_name(path.name + ".pcm")
    try:
        with (
            soundfile.SoundFile(path) as source,
            _open_to_write(converted, source.samplerate, SampleFormat.PCM_16) as target,
        ):
            while len(block := source.read(_BLOCK, dtype="float32")):
                target.write(block * np.float32(scale))
        converted.replace(path)
    finally:
        converted.unlink(missing_ok=True)
