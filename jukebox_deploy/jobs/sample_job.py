"""Sampling: an engine bundle opened, and what came out of a run.

PyTorch is imported only for the backend that is PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.onnxruntime_sessions import OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.onnx_opening import onnx_engine
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.audio import WavReport
from jukebox_deploy.runtime.events import Event, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.spectrogram import write_spectrogram
from jukebox_deploy.runtime.store import Fingerprint


class Backend(StrEnum):
    """What can run the graphs of a bundle."""

    ONNXRUNTIME = "onnxruntime"
    EAGER = "eager"  # PyTorch, with the weights of a checkpoint bundle; to compare with


@dataclass(frozen=True)
class EngineChoice:
    """How the graphs are run."""

    backend: Backend = Backend.ONNXRUNTIME
    provider: str = "cpu"  # or "cuda"
    threads: int | None = None  # None: as the backend sees fit
    checkpoint: Path | None = None  # a checkpoint bundle; for the backend eager only
    map_weights: bool = False  # large ones stay in their file; for the backend onnxruntime only

    def __post_init__(self) -> None:
        if self.backend is Backend.EAGER and self.checkpoint is None:
            raise EngineError("the backend eager runs the weights of a checkpoint bundle; name it with --checkpoint.")
        if self.backend is not Backend.EAGER and self.checkpoint is not None:
            raise EngineError(f"the backend {self.backend} has its weights in the engine bundle; drop --checkpoint.")
        if self.backend is Backend.EAGER and self.map_weights:
            raise EngineError("the backend eager loads the weights of its checkpoint; drop --map-weights.")
        if self.provider != "cpu" and self.map_weights:
            raise EngineError(f"the provider {self.provider} copies weights to its device; drop --map-weights.")

    @property
    def arithmetic(self) -> str:
        """What rounds sums its own way, so that songs go on with the codes they began with."""
        return f"{self.backend} {self.provider}" + (" mapped" if self.map_weights else "")


@dataclass(frozen=True)
class OpenedModel:
    """An engine with what else songs need."""

    engine: Engine
    fingerprint: Fingerprint
    vocabulary: Vocabulary

    def sampler(self, options: SamplingOptions) -> SongSampler:
        """What makes songs with this engine."""
        return SongSampler(self.engine, self.fingerprint, self.vocabulary, options)


def open_model(folder: Path, choice: EngineChoice | None = None) -> OpenedModel:
    """Open an engine bundle whose hashes are right.

    Raises `EngineError` for a bundle, backend or provider that cannot run here, `CheckpointError` for a
    broken checkpoint.
    """
    choice = choice or EngineChoice()
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    if choice.map_weights and manifest.linear_weights is not LinearWeights.AS_PRECISION:
        raise EngineError(
            f"{folder} has {manifest.linear_weights} weights, which are always packed; drop --map-weights."
        )
    engine, identity = _OPENERS[choice.backend](bundle, choice)
    return OpenedModel(
        engine,
        Fingerprint(f"{choice.arithmetic} {manifest.precision} {identity}", manifest.checkpoint),
        Vocabulary.from_json(manifest.vocabulary),
    )


def _open_onnx(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """The engine, and the hash of its files."""
    hashes = {name: record.sha256 for name, record in bundle.manifest.files.items()}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    options = OnnxRuntimeOptions(choice.provider, choice.threads, map_weights=choice.map_weights)
    return onnx_engine(bundle, options), digest


def _open_eager(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """The engine, and PyTorch's version. The bundle gives the tables of the graphs."""
    import torch

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.opening import eager_engine, require_same_model

    checkpoint = CheckpointBundle.open(choice.checkpoint or Path())
    require_same_model(bundle, checkpoint)
    if choice.provider == "cuda" and not torch.cuda.is_available():
        raise EngineError("this PyTorch sees no CUDA device; use --provider cpu.")
    engine = eager_engine(checkpoint, bundle.graphs, bundle.manifest.precision, choice.provider, choice.threads)
    return engine, torch.__version__


_OPENERS: dict[Backend, Callable[[EngineBundle, EngineChoice], tuple[Engine, str]]] = {
    Backend.ONNXRUNTIME: _open_onnx,
    Backend.EAGER: _open_eager,
}


@dataclass
class SampleSummary:
    """What came out of a run, gathered from its events."""

    jobs: Sequence[SongJob]
    sounds: dict[int, WavReport] = field(default_factory=dict)  # by song
    warnings: dict[int, list[str]] = field(default_factory=dict)
    new_codes: dict[int, dict[int, int]] = field(default_factory=dict)  # by level, then by song
    spectrograms: dict[int, Path] = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic)

    def note(self, event: Event) -> None:
        """Take over what an event says."""
        match event:
            case LevelProgress(level, song, found, done):
                self.new_codes.setdefault(level, {})[song] = done - found
            case SongWarning(song, text):
                self.warnings.setdefault(song, []).append(text)
            case SongDecoded(song=song, wav=wav):
                self.sounds[song] = wav

    def draw_spectrograms(self) -> None:
        """Draw every sound file into a PNG beside it."""
        for song, wav in self.sounds.items():
            self.spectrograms[song] = draw_spectrogram(wav.path)

    def to_json(self) -> dict[str, Any]:
        """Plain data: files, lengths, peaks, warnings, and codes that were sampled by level."""
        return {
            "elapsed_seconds": round(time.monotonic() - self._begun, 3),
            "sampled_codes": {str(level): sum(songs.values()) for level, songs in self.new_codes.items()},
            "songs": [self._song(index, job) for index, job in enumerate(self.jobs)],
        }

    def _song(self, index: int, job: SongJob) -> dict[str, Any]:
        wav, picture = self.sounds[index], self.spectrograms.get(index)
        return {
            "folder": str(job.folder),
            **asdict(wav),
            "path": str(wav.path),
            "seconds": wav.seconds,
            "spectrogram": str(picture) if picture else None,
            "warnings": self.warnings.get(index, []),
        }


def draw_spectrogram(wav: Path) -> Path:
    """Draw a sound file into a PNG beside it and return its path."""
    import soundfile

    audio, rate = soundfile.read(wav, dtype="float32")
    picture = wav.with_suffix(".png")
    write_spectrogram(picture, {wav.parent.name: audio}, rate)
    return picture
