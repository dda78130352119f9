"""Audio input and output: prompts are read as mono float32 at the model's rate, songs are written as WAV files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.errors import AudioError
from jukebox_deploy.files import atomic_path
from jukebox_deploy.sound_files import erase_time_of_peak, open_sound, resample

if TYPE_CHECKING:
    import soundfile

_BLOCK = 1 << 16  # samples per block when a file is converted


class SampleFormat(StrEnum):
    """Storage format of the samples of a WAV file."""

    FLOAT = "float"  # 32-bit float: the decoder's output unchanged
    PCM_16 = "pcm16"  # 16-bit integers; the file is scaled down if the decoder's output exceeds [-1, 1]

    @property
    def subtype(self) -> str:
        """The name of the format in libsndfile."""
        return {"float": "FLOAT", "pcm16": "PCM_16"}[self.value]


@dataclass(frozen=True)
class WavReport:
    """Summary of a WAV file that was written."""

    path: Path
    samples: int
    sample_rate: int
    peak: float  # largest magnitude before scaling
    scale: float  # factor that every sample was multiplied by; 1.0 means unchanged

    @property
    def seconds(self) -> float:
        """Duration of the file."""
        return self.samples / self.sample_rate


def read_prompt(path: Path, sample_rate: int, hop_length: int, seconds: float | None = None) -> np.ndarray:
    """Read a sound file as a prompt: mono float32 `[samples]`, truncated to a multiple of `hop_length`.

    Channels are averaged, other sample rates are resampled, and with `seconds` only that much of the beginning is
    read. `hop_length` is the top level's, so that the prompt is a whole number of codes at every level
    (specification 12.4). Raises `AudioError` if the file is missing, is not a sound file, holds NaN or infinity, is
    silent or is shorter than one top-level code.
    """
    channels, rate = _read_file(path, seconds)
    if not np.isfinite(channels).all():
        raise AudioError(f"{path}: the prompt has NaN or infinite samples; give another file.")
    audio = resample(channels.mean(axis=1), rate, sample_rate)
    audio = audio[: len(audio) // hop_length * hop_length]
    if len(audio) == 0:
        found, needed = len(channels) / rate, hop_length / sample_rate
        raise AudioError(
            f"{path}: the prompt lasts {found * 1000:.2f} ms, less than one top-level code ({needed * 1000:.2f} ms); "
            "give a longer prompt."
        )
    if not audio.any():
        raise AudioError(f"{path}: the prompt is silent: every sample is zero; give a file with sound in it.")
    return audio


def _read_file(path: Path, seconds: float | None) -> tuple[np.ndarray, int]:
    """Read the samples `[frames, channels]` at the file's own rate; return them with that rate."""
    with open_sound(path) as file:
        frames = -1 if seconds is None else round(seconds * file.samplerate)
        channels = file.read(frames, dtype="float32", always_2d=True)
        rate = file.samplerate
    if len(channels) == 0:
        raise AudioError(f"{path}: the prompt is empty: the file has no samples; give a file with sound in it.")
    return channels, rate


class WavWriter:
    """Writer of one WAV file in chunks; created by `writing_wav`."""

    def __init__(self, path: Path, sample_rate: int, file: soundfile.SoundFile) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self.samples = 0
        self.peak = 0.0
        self.scale = 1.0
        self._file = file

    def write(self, chunk: np.ndarray) -> None:
        """Append mono samples `[samples]`; raise `AudioError` if one of them is NaN or infinite."""
        if not np.isfinite(chunk).all():
            raise AudioError(
                f"{self.path}: the audio is not finite between samples {self.samples} and "
                f"{self.samples + len(chunk)}; nothing was written."
            )
        with _explained(self.path):
            self._file.write(chunk)
        self.samples += len(chunk)
        self.peak = max(self.peak, float(np.abs(chunk).max(initial=0.0)))

    def report(self) -> WavReport:
        """Summarize what has been written; final once the `writing_wav` block has ended."""
        return WavReport(self.path, self.samples, self.sample_rate, self.peak, self.scale)


@contextmanager
def writing_wav(path: Path, sample_rate: int, sample_format: SampleFormat = SampleFormat.FLOAT) -> Iterator[WavWriter]:
    """Open a mono WAV file for writing in chunks; the finished file appears at the end, or none after an error.

    A 16-bit file is scaled by `1 / peak` if a sample exceeds 1 in magnitude; the report records the scale.
    Raises `AudioError` when the file cannot be written.
    """
    with ExitStack() as stack:
        with _explained(path):
            temporary = stack.enter_context(atomic_path(path))
            # Written as float first: a 16-bit file is scaled by its peak, which is known only at the end.
            file = stack.enter_context(_open_to_write(temporary, sample_rate, SampleFormat.FLOAT))
        writer = WavWriter(path, sample_rate, file)
        yield writer  # an error of the block is its own, not one of writing
        with _explained(path):
            file.close()
            if sample_format is SampleFormat.FLOAT:
                erase_time_of_peak(temporary)
            else:
                writer.scale = 1.0 / max(writer.peak, 1.0)
                _convert_to_pcm(temporary, writer.scale)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of writing into an `AudioError` that names the file."""
    import soundfile

    try:
        yield
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(
            f"{path}: the sound file could not be written ({error}). Check the free disk space and try again."
        ) from error


def _open_to_write(path: Path, sample_rate: int, sample_format: SampleFormat) -> soundfile.SoundFile:
    import soundfile

    return soundfile.SoundFile(path, "w", sample_rate, 1, sample_format.subtype, format="WAV")


def _convert_to_pcm(path: Path, scale: float) -> None:
    """Convert a float file to 16 bits in place, block by block, so that memory does not grow with the song."""
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
