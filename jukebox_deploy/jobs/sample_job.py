"""Sampling: an engine bundle opened, and what came out of a run.

PyTorch is imported only for the backend that is PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import GPU_PROVIDERS, OnnxRuntimeOptions, import_onnxruntime
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.bundle import tensorrt_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.audio import WavReport
from jukebox_deploy.runtime.events import Event, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.spectrogram import write_spectrogram
from jukebox_deploy.runtime.store import Fingerprint
from jukebox_deploy.threads import usable_cores


class Backend(StrEnum):
    """What can run the graphs of a bundle."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    EAGER = "eager"  # PyTorch, with the weights of a checkpoint bundle; to compare with

    @property
    def is_tensorrt(self) -> bool:
        """Whether it runs engines, on a GPU and nowhere else."""
        return self in (Backend.TENSORRT, Backend.TENSORRT_RTX)


_PROVIDERS: dict[Backend, tuple[str | None, ...]] = {
    Backend.ONNXRUNTIME: ("cpu", *GPU_PROVIDERS),
    Backend.EAGER: ("cpu", "cuda"),
    Backend.TENSORRT: (None,),
    Backend.TENSORRT_RTX: (None,),
}


@dataclass(frozen=True)
class EngineChoice:
    """How the graphs are run. What is left open is as the backend sees fit."""

    backend: Backend | None = None  # None: what the bundle was made for
    provider: str | None = None  # for onnxruntime and eager; None: "cpu"
    threads: int | None = None  # of a CPU
    checkpoint: Path | None = None  # a checkpoint bundle; for the backend eager only
    map_weights: bool = False  # large ones stay in their file; for the backend onnxruntime only
    cuda_graph: bool | None = None  # record steps on a GPU and replay them; None: where that is possible
    tensorrt: TensorRtOptions | None = None  # for engines of TensorRT only; `cuda_graph` above is the one that counts
    compiled: bool = False  # steps go through `torch.compile`; for the backend eager only

    def __post_init__(self) -> None:
        if self.backend is Backend.EAGER and self.checkpoint is None:
            raise EngineError("the backend eager runs the weights of a checkpoint bundle; name it with --checkpoint.")
        if self.backend is not Backend.EAGER and self.checkpoint is not None:
            of = "an engine bundle" if self.backend is None else f"the backend {self.backend}"
            raise EngineError(f"{of} has its weights in itself; drop --checkpoint, or add --backend eager.")
        if self.backend is Backend.EAGER and self.map_weights:
            raise EngineError("the backend eager loads the weights of its checkpoint; drop --map-weights.")
        if self.provider not in (None, "cpu") and self.map_weights:
            raise EngineError(f"the provider {self.provider} copies weights to its device; drop --map-weights.")

    @property
    def may_record(self) -> bool:
        """Whether there are recordings of steps where this runs, once it is settled."""
        return self.provider == "cuda" or (self.backend is not None and self.backend.is_tensorrt)

    def settle(self, target: Target) -> EngineChoice:
        """The choice for a bundle made for `target`: backend and provider named; `EngineError` for what cannot be."""
        backend = self.backend or Backend(str(target))
        if backend is not Backend.EAGER and str(backend) != str(target):
            raise EngineError(f"the bundle was made for {target}; drop --backend {backend}, or give another bundle.")
        settled = replace(self, backend=backend, provider=None if backend.is_tensorrt else self.provider or "cpu")
        given = {
            "--provider": settled.provider not in _PROVIDERS[backend] or (backend.is_tensorrt and bool(self.provider)),
            "--threads": self.threads is not None and backend.is_tensorrt,
            "--map-weights": self.map_weights and backend.is_tensorrt,
            "--cuda-graph": bool(self.cuda_graph) and not settled.may_record,
            "--no-cuda-graph": self.cuda_graph is False and not settled.may_record,
            "--compile": self.compiled and backend is not Backend.EAGER,
            "options of engines for TensorRT": self.tensorrt is not None and not backend.is_tensorrt,
        }
        if odd := [name for name, is_odd in given.items() if is_odd]:
            on = f"{backend}" + (f" on {settled.provider}" if settled.provider else "")
            raise EngineError(f"{', '.join(odd)}: of no use to {on}; drop it.")
        return settled


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
    bundle = open_bundle(folder)
    manifest = bundle.manifest
    choice = (choice or EngineChoice()).settle(manifest.target)
    if choice.map_weights and manifest.linear_weights is not LinearWeights.AS_PRECISION:
        raise EngineError(
            f"{folder} has {manifest.linear_weights} weights, which are always packed; drop --map-weights."
        )
    engine, arithmetic = _OPENERS[choice.backend or Backend.ONNXRUNTIME](bundle, choice)
    return OpenedModel(
        engine,
        Fingerprint(arithmetic, manifest.checkpoint),
        Vocabulary.from_json(manifest.vocabulary),
    )


# The openers also tell what rounds sums its own way, so that songs go on with the arithmetic they began with.


def _open_onnx(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    options = OnnxRuntimeOptions(
        choice.provider or "cpu", choice.threads, map_weights=choice.map_weights, cuda_graph=choice.cuda_graph
    )
    mapped = f" mapped on {_threads(choice)}" if choice.map_weights else ""
    on = options.provider if options.provider == "cpu" else f"{options.provider} {_gpu_and_version()}"
    precision = bundle.manifest.precision
    return onnx_engine(bundle, options), f"onnxruntime {on}{mapped} {precision} {_digest(bundle)}"


def _gpu_and_version() -> str:
    """On a GPU, kernels are chosen by what it is and by the version of ONNX Runtime."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    try:
        gpu = CudaDevice().properties.name
    except NoDeviceError:  # CUDA's bindings are not here, of which ONNX Runtime has no need
        gpu = "an unknown GPU"
    return f"{import_onnxruntime().__version__} {gpu}"


def _open_tensorrt(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """Engines choose their kernels by the GPU."""
    options = replace(choice.tensorrt or TensorRtOptions(), cuda_graph=choice.cuda_graph)
    engine = tensorrt_engine(bundle, options)
    gpu, version = engine.platform.device.properties.name, engine.platform.version
    return engine, f"{bundle.manifest.target} {version} {gpu} {bundle.manifest.precision} {_digest(bundle)}"


def _threads(choice: EngineChoice) -> str:
    """Where sums are cut into pieces for threads: how many these are, or what they follow from."""
    return f"{choice.threads} threads" if choice.threads else f"threads for {usable_cores()} cores"


def _digest(bundle: EngineBundle) -> str:
    """The hash of a bundle's files."""
    hashes = {name: record.sha256 for name, record in bundle.manifest.files.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _open_eager(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """The bundle gives the tables of the graphs."""
    import torch

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.eager.replay import TorchRecording
    from jukebox_deploy.engines.replay import Recorder
    from jukebox_deploy.jobs.opening.eager import WITHOUT_COMPILING, eager_engine, require_same_model
    from jukebox_deploy.models.compilation import require_compilation

    checkpoint = CheckpointBundle.open(choice.checkpoint or Path())
    require_same_model(bundle, checkpoint)
    if choice.provider == "cuda" and not torch.cuda.is_available():
        raise EngineError("this PyTorch sees no CUDA device; use --provider cpu.")
    provider, precision = choice.provider or "cpu", bundle.manifest.precision
    if choice.compiled:
        require_compilation(provider, EngineError, WITHOUT_COMPILING)
    records = provider == "cuda" and choice.cuda_graph is not False
    engine = eager_engine(
        checkpoint,
        bundle.graphs,
        precision,
        provider,
        choice.threads,
        recorder=Recorder(TorchRecording, required=choice.cuda_graph is True) if records else None,
        compiled=choice.compiled,
    )
    on = f"cuda {torch.cuda.get_device_name()}" if provider == "cuda" else f"cpu on {_threads(choice)}"
    compiled = " compiled" if choice.compiled else ""
    return engine, f"eager {on}{compiled} {precision} {torch.__version__}"


_OPENERS: dict[Backend, Callable[[EngineBundle, EngineChoice], tuple[Engine, str]]] = {
    Backend.ONNXRUNTIME: _open_onnx,
    Backend.TENSORRT: _open_tensorrt,
    Backend.TENSORRT_RTX: _open_tensorrt,
    Backend.EAGER: _open_eager,
}


@dataclass
class SampleSummary:
    """What came out of a run, gathered from its events."""

    jobs: Sequence[SongJob]
    sounds: dict[int, WavReport] = field(default_factory=dict)  # by song, of the lowest level
    upper_sounds: dict[int, list[WavReport]] = field(default_factory=dict)  # by song, from the top down
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
                if song in self.sounds:
                    self.upper_sounds.setdefault(song, []).append(self.sounds[song])
                self.sounds[song] = wav

    def draw_spectrograms(self) -> None:
        """Draw every song's lowest level into a PNG beside it."""
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
            "upper_levels": [str(upper.path) for upper in self.upper_sounds.get(index, [])],
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
