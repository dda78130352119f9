"""Sampling: open an engine bundle as a model, and summarise a sampling run.

PyTorch is imported only for the backend `eager`.
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
from jukebox_deploy.engines.device import PYTORCH_PROVIDERS, NoDeviceError, Provider
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.arithmetic import describe_cpu_arithmetic, describe_gpu_arithmetic
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.bundle import require_slots_of_bundle, tensorrt_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.opening.same_model import require_same_model
from jukebox_deploy.jobs.sampling_advice import NO_ADVICE, SamplingAdvice, engine_advice
from jukebox_deploy.jobs.spectrogram import write_spectrogram
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.optional_packages import packages_explained
from jukebox_deploy.runtime.audio import WavReport
from jukebox_deploy.runtime.events import Event, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.store import Fingerprint
from jukebox_deploy.threads import usable_cores


class Backend(StrEnum):
    """The backends that can run the graphs of a bundle."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    EAGER = "eager"  # PyTorch, with the weights of a checkpoint bundle; for comparison

    @property
    def is_tensorrt(self) -> bool:
        """Whether this backend runs TensorRT engines, which need a GPU."""
        return self in (Backend.TENSORRT, Backend.TENSORRT_RTX)


_PROVIDERS: dict[Backend, tuple[str | None, ...]] = {
    Backend.ONNXRUNTIME: tuple(Provider),
    Backend.EAGER: PYTORCH_PROVIDERS,
    Backend.TENSORRT: (None,),
    Backend.TENSORRT_RTX: (None,),
}


_FOR_TENSORRT = "options of engines for TensorRT (such as --kernel-caches and --weight-budget)"


@dataclass(frozen=True)
class EngineChoice:
    """How to run the graphs; whatever is `None` is left to the backend."""

    backend: Backend | None = None  # None: what the bundle was made for
    provider: str | None = None  # a value of `Provider`, for onnxruntime and eager; None: that of the CPU
    threads: int | None = None  # of a CPU
    checkpoint: Path | None = None  # a checkpoint bundle; for the backend eager only
    map_weights: bool = False  # use large weights memory-mapped; for the backend onnxruntime only
    cuda_graph: bool | None = None  # record steps on a GPU and replay them; None: where that is possible
    tensorrt: TensorRtOptions | None = None  # for TensorRT engines only; its `cuda_graph` counts if that above is None
    compiled: bool = False  # steps go through `torch.compile`; for the backend eager only

    def __post_init__(self) -> None:
        if self.backend is Backend.EAGER and self.checkpoint is None:
            raise EngineError("the backend eager runs the weights of a checkpoint bundle; name it with --checkpoint.")
        if self.backend is not Backend.EAGER and self.checkpoint is not None:
            of = "an engine bundle" if self.backend is None else f"the backend {self.backend}"
            raise EngineError(f"{of} has its weights in itself; drop --checkpoint, or add --backend eager.")
        if self.backend is Backend.EAGER and self.map_weights:
            raise EngineError("the backend eager loads the weights of its checkpoint; drop --map-weights.")
        if self.provider not in (None, Provider.CPU) and self.map_weights:
            raise EngineError(f"the provider {self.provider} copies weights to its device; drop --map-weights.")

    @property
    def may_record(self) -> bool:
        """Whether a settled choice runs where steps can be recorded as CUDA graphs."""
        return self.provider == Provider.CUDA or (self.backend is not None and self.backend.is_tensorrt)

    @property
    def tensorrt_options(self) -> TensorRtOptions:
        """The options of engines for TensorRT, with `cuda_graph` of this choice unless that is left open."""
        options = self.tensorrt or TensorRtOptions()
        return options if self.cuda_graph is None else replace(options, cuda_graph=self.cuda_graph)

    def settle(self, target: Target) -> EngineChoice:
        """Fill in backend and provider for a bundle made for `target`. Raises `EngineError` for invalid choices."""
        backend = self.backend or Backend(str(target))
        if backend is not Backend.EAGER and str(backend) != str(target):
            raise EngineError(f"the bundle was made for {target}; drop --backend {backend}, or give another bundle.")
        provider = None if backend.is_tensorrt else self.provider or Provider.CPU
        settled = replace(self, backend=backend, provider=provider)
        given = {
            "--provider": settled.provider not in _PROVIDERS[backend] or (backend.is_tensorrt and bool(self.provider)),
            "--threads": self.threads is not None and backend.is_tensorrt,
            "--map-weights": self.map_weights and backend.is_tensorrt,
            "--cuda-graph": bool(self.cuda_graph) and not settled.may_record,
            "--no-cuda-graph": self.cuda_graph is False and not settled.may_record,
            "--compile": self.compiled and backend is not Backend.EAGER,
            _FOR_TENSORRT: self.tensorrt is not None and not backend.is_tensorrt,
        }
        if odd := [name for name, is_odd in given.items() if is_odd]:
            on = f"{backend}" + (f" on {settled.provider}" if settled.provider else "")
            raise EngineError(f"{', '.join(odd)}: not supported by {on}; drop {'it' if len(odd) == 1 else 'them'}.")
        return settled


@dataclass(frozen=True)
class OpenedModel:
    """An engine, with everything else that is needed to sample songs."""

    engine: Engine
    fingerprint: Fingerprint
    vocabulary: Vocabulary
    advice: SamplingAdvice = NO_ADVICE  # already applied to requests, which have all settings

    def sampler(self, options: SamplingOptions) -> SongSampler:
        """Return a sampler for this engine."""
        return SongSampler(self.engine, self.fingerprint, self.vocabulary, options)


def open_model(folder: Path, choice: EngineChoice | None = None, slots: int | None = None) -> OpenedModel:
    """Open an engine bundle after checking its hashes; `slots`: as many are to be used, if the number matters.

    Raises `EngineError` for a bundle, backend or provider that cannot run here, `CheckpointError` for a
    damaged checkpoint, `SamplingError` for slots that the bundle does not take and for invalid sampling settings in the
    manifest, `MissingPackageError` for the backend eager without PyTorch.
    """
    bundle = open_bundle(folder)
    if slots is not None:
        require_slots_of_bundle(bundle, slots)
    manifest, advice = bundle.manifest, engine_advice(bundle)
    choice = (choice or EngineChoice()).settle(manifest.target)
    if choice.map_weights and manifest.linear_weights is not LinearWeights.AS_PRECISION:
        raise EngineError(
            f"{folder} has {manifest.linear_weights} weights, which are always packed; drop --map-weights."
        )
    with packages_explained():
        engine, arithmetic = _OPENERS[choice.backend or Backend.ONNXRUNTIME](bundle, choice)
    return OpenedModel(
        engine,
        Fingerprint(arithmetic, manifest.checkpoint),
        Vocabulary.from_json(manifest.vocabulary),
        advice,
    )


# Openers also return a description of everything that affects rounding, so that a song is continued only with the
# arithmetic it was started with.


def _open_onnx(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    options = OnnxRuntimeOptions(
        choice.provider or Provider.CPU, choice.threads, map_weights=choice.map_weights, cuda_graph=choice.cuda_graph
    )
    mapped = f" mapped on {_threads(choice)}" if choice.map_weights else ""
    engine = onnx_engine(bundle, options)
    on = f"{options.provider} {_kernels_of_onnxruntime(options)}{mapped}"
    return engine, f"onnxruntime {on} {bundle.manifest.precision} {_digest(bundle)}"


def _kernels_of_onnxruntime(options: OnnxRuntimeOptions) -> str:
    runtime = import_onnxruntime()
    if options.provider == Provider.CPU:
        return describe_cpu_arithmetic(runtime)
    return f"{describe_gpu_arithmetic(runtime)}, {_gpu()}"


def _gpu() -> str:
    """Return the name of the GPU, on which the choice of kernels depends."""
    from jukebox_deploy.engines.cuda_device import CudaDevice

    try:
        return CudaDevice().properties.name
    except NoDeviceError:  # CUDA's Python bindings are not installed; ONNX Runtime does not need them
        return "an unknown GPU"


def _open_tensorrt(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """Open TensorRT engines, whose kernels depend on the GPU."""
    engine = tensorrt_engine(bundle, choice.tensorrt_options)
    gpu, version = engine.platform.device.properties.name, engine.platform.version
    return engine, f"{bundle.manifest.target} {version} {gpu} {bundle.manifest.precision} {_digest(bundle)}"


def _threads(choice: EngineChoice) -> str:
    """Describe the number of threads, on which the order of summation depends."""
    return f"{choice.threads} threads" if choice.threads else f"threads for {usable_cores()} cores"


def _digest(bundle: EngineBundle) -> str:
    """Return a hash over all files of a bundle."""
    hashes = {name: record.sha256 for name, record in bundle.manifest.files.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _open_eager(bundle: EngineBundle, choice: EngineChoice) -> tuple[Engine, str]:
    """Open the checkpoint in PyTorch; only the graphs' tables come from the bundle."""
    import torch

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.eager.replay import TorchRecording
    from jukebox_deploy.engines.replay import Recorder
    from jukebox_deploy.jobs.opening.eager import WITHOUT_COMPILING, eager_engine, require_device
    from jukebox_deploy.models.compilation import require_compilation

    checkpoint = CheckpointBundle.open(choice.checkpoint or Path())
    require_same_model(bundle, checkpoint)
    provider, precision = choice.provider or Provider.CPU, bundle.manifest.precision
    require_device(provider)
    if choice.compiled:
        require_compilation(provider, EngineError, WITHOUT_COMPILING)
    records = provider == Provider.CUDA and choice.cuda_graph is not False
    engine = eager_engine(
        checkpoint,
        bundle.graphs,
        precision,
        provider,
        choice.threads,
        recorder=Recorder(TorchRecording, required=choice.cuda_graph is True) if records else None,
        compiled=choice.compiled,
    )
    cpu = f"on {_threads(choice)} {torch.backends.cpu.get_cpu_capability()}"
    on = torch.cuda.get_device_name() if provider == Provider.CUDA else cpu
    compiled = " compiled" if choice.compiled else ""
    return engine, f"eager {provider} {on}{compiled} {precision} {torch.__version__}"


_OPENERS: dict[Backend, Callable[[EngineBundle, EngineChoice], tuple[Engine, str]]] = {
    Backend.ONNXRUNTIME: _open_onnx,
    Backend.TENSORRT: _open_tensorrt,
    Backend.TENSORRT_RTX: _open_tensorrt,
    Backend.EAGER: _open_eager,
}


@dataclass
class SampleSummary:
    """The results of a sampling run, collected from its events."""

    jobs: Sequence[SongJob]
    sounds: dict[int, WavReport] = field(default_factory=dict)  # by song, of the lowest level
    upper_sounds: dict[int, list[WavReport]] = field(default_factory=dict)  # by song, from the top down
    warnings: dict[int, list[str]] = field(default_factory=dict)
    new_codes: dict[int, dict[int, int]] = field(default_factory=dict)  # by level, then by song
    spectrograms: dict[int, Path] = field(default_factory=dict)
    _begun: float = field(default_factory=time.monotonic)

    def note(self, event: Event) -> None:
        """Record an event."""
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
        """Draw the lowest level of every song as a PNG next to its sound file."""
        for song, wav in self.sounds.items():
            self.spectrograms[song] = draw_spectrogram(wav.path)

    def to_json(self) -> dict[str, Any]:
        """Return plain data: files, lengths, peaks, warnings, and numbers of sampled codes by level."""
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
    """Draw the spectrogram of a sound file as a PNG next to it and return its path."""
    import soundfile

    audio, rate = soundfile.read(wav, dtype="float32")
    picture = wav.with_suffix(".png")
    write_spectrogram(picture, {wav.parent.name: audio}, rate)
    return picture
