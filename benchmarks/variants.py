"""The variants that are compared: engine bundles of one checkpoint, and baselines on the same weights.

A variant is plain data, so another process can open it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.growing_caches import GrowingCachePrior
from jukebox_deploy.benchmarks.hugging_face_prior import HuggingFacePrior, reason_to_leave_out
from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.sequential_prior import SequentialEngine, SequentialPrior
from jukebox_deploy.benchmarks.workload_groups import BASELINES
from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, LinearWeights, Precision
from jukebox_deploy.costs import WeightStorage, linear_weight_bytes, step_bytes, weight_bytes
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.engines.eager.replay import TorchRecording
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import LARGE_WEIGHTS, OnnxRuntimeOptions
from jukebox_deploy.engines.quantised_weights import facts_of
from jukebox_deploy.engines.replay import Recorder
from jukebox_deploy.engines.threads import worthwhile_threads
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.jobs.opening.same_model import require_same_model

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
    from jukebox_deploy.models.prior import Prior
    from jukebox_deploy.models.vqvae import VQVAE

_CACHE_WORKLOADS = (WorkloadKind.STEP, WorkloadKind.PREFILL)
_EAGER_ENGINES = (Backend.EAGER_STATIC, Backend.EAGER_RECORDED, Backend.TORCH_COMPILE)  # run by `EagerEngine`
_OTHER_STEPS = (Backend.EAGER_RECORDED, Backend.TORCH_COMPILE)  # differ from eager-static in their steps only
_ONLY_DEVICE = {Backend.EAGER_RECORDED: Provider.CUDA, Backend.HUGGING_FACE: Provider.CPU}


def baselines_of(device: Provider) -> tuple[Backend, ...]:
    """Return the baselines that run on a device, one of `PYTORCH_PROVIDERS`."""
    return tuple(backend for backend in BASELINES if _ONLY_DEVICE.get(backend, device) == device)


@dataclass(frozen=True)
class Variant:
    """An engine or baseline, with the weights that it runs."""

    backend: Backend
    precision: Precision
    weights: LinearWeights
    bundle: Path  # the engine bundle that runs; for a baseline the one whose graph declarations it uses
    checkpoint: Path | None = None  # the checkpoint bundle of a baseline; `None` for an engine
    mapped: bool = False  # whether an engine uses large weights from their memory-mapped file

    @property
    def weight_format(self) -> str:
        """The weight format as in `VariantResult.weights`: the precision, or int8, int4, fp8 or mapped."""
        if self.mapped:
            return "mapped"
        return str(self.precision if self.weights is LinearWeights.AS_PRECISION else self.weights)

    @property
    def is_engine(self) -> bool:
        """Whether this is an engine and not a baseline."""
        return self.backend not in BASELINES

    def reason_to_leave_out(self, kind: WorkloadKind) -> str | None:
        """Return why measuring this variant in a workload would tell nothing new; `None` if it would."""
        if self.backend in _OTHER_STEPS and kind not in (WorkloadKind.STEP, WorkloadKind.SONG):
            return f"only its steps differ from {Backend.EAGER_STATIC}"
        return None


class Subjects:
    """The bundles being measured, all of one checkpoint. Each PyTorch model is loaded once, for all baselines."""

    def __init__(
        self,
        bundles: Sequence[EngineBundle],
        checkpoint: CheckpointBundle | None,
        device: Provider = Provider.CPU,
        tensorrt: TensorRtOptions | None = None,
    ) -> None:
        """`device`: of all variants; `tensorrt`: options for engines of TensorRT and TensorRT-RTX.

        Raises `EngineError` for a bundle of another checkpoint. Raises `ConfigError` if there is no bundle, if one does
        not run on the device, or if `tensorrt` is given and no bundle has such engines.
        """
        if not bundles:
            raise ConfigError("no engine bundle is given; give at least one.")
        for bundle in bundles:
            if bundle.manifest.target is not Target.ONNXRUNTIME and device == Provider.CPU:
                raise ConfigError(
                    f"{bundle.folder} holds {bundle.manifest.target} engines, which run on a GPU; add --device cuda, "
                    "so that the baselines run on the GPU too."
                )
        if tensorrt is not None and all(bundle.manifest.target is Target.ONNXRUNTIME for bundle in bundles):
            raise ConfigError(
                "options for TensorRT are given, but no bundle holds engines for it; drop the options, or give such a "
                "bundle."
            )
        self.device = device
        self._tensorrt = tensorrt
        self._bundles = {bundle.folder: bundle for bundle in bundles}
        self._checkpoint = checkpoint
        self._models: dict[int | None, VQVAE | Prior] = {}
        self.first = bundles[0]
        if checkpoint is not None:
            for bundle in bundles:
                require_same_model(bundle, checkpoint)

    @property
    def config(self) -> JukeboxConfig:
        """The configuration of the model."""
        return self.first.manifest.config

    @cached_property
    def engines(self) -> list[Variant]:
        """One variant per bundle, in the order of the bundles."""
        manifests = {folder: bundle.manifest for folder, bundle in self._bundles.items()}
        return [
            Variant(Backend(str(m.target)), m.precision, m.linear_weights, folder) for folder, m in manifests.items()
        ]

    def baseline(self, backend: Backend) -> Variant:
        """Return the variant of a baseline, in the precision of the first bundle."""
        folder = None if self._checkpoint is None else self._checkpoint.folder
        return Variant(backend, self.first.manifest.precision, LinearWeights.AS_PRECISION, self.first.folder, folder)

    def threads(self, variant: Variant, graph: GraphSpec) -> int:
        """Return the number of threads that are worthwhile for a variant of a graph."""
        if variant.is_engine or graph.model_level is None:
            return worthwhile_threads(graph, self._file_bytes(variant, graph))
        # A baseline runs the weights of the checkpoint, in whatever format the bundle has them.
        storage = WeightStorage.SINGLE if variant.precision is Precision.FP32 else WeightStorage.HALF_LINEAR
        return worthwhile_threads(graph, weight_bytes(self.config.prior(graph.model_level), storage))

    def _file_bytes(self, variant: Variant, graph: GraphSpec) -> int:
        """Return the bytes of the weight files of a graph in the variant's bundle."""
        manifest = self._bundles[variant.bundle].manifest
        return manifest.bytes_of(manifest.graph(graph.kind, graph.level).weights)

    def mapped_engines(self, graph: GraphSpec) -> list[Variant]:
        """Return the engines with mapped weights: those whose float weights of a graph exceed `LARGE_WEIGHTS`."""
        floats = [v for v in self.engines if v.weights is LinearWeights.AS_PRECISION]
        return [replace(v, mapped=True) for v in floats if self._file_bytes(v, graph) > LARGE_WEIGHTS]

    def step_bytes(self, variant: Variant, level: int, slots: int) -> int:
        """Return the minimum memory traffic of a variant's step, in bytes; see `costs.step_bytes`."""
        prior, precision = self.config.prior(level), variant.precision
        total = step_bytes(prior, slots, precision, variant.weights)
        for shape in self._kept_layers(variant, level):  # `costs.step_bytes` counted them as quantised
            total += linear_weight_bytes(shape, precision, LinearWeights.AS_PRECISION)
            total -= linear_weight_bytes(shape, precision, variant.weights)
        return total

    def _kept_layers(self, variant: Variant, level: int) -> list[tuple[int, int]]:
        """Return the shapes of those weight matrices of the step that the export kept in the precision."""
        from jukebox_deploy.checkpoints.layout import component_shapes

        facts = facts_of(self._bundles[variant.bundle].manifest.graph(GraphKind.STEP, level))
        if variant.weights is LinearWeights.AS_PRECISION or facts is None:
            return []
        shapes = component_shapes(self.config.prior(level))
        in_step = [name for name in facts["kept"] if name.startswith("core.") and "encoder_key_value" not in name]
        return [(shapes[name][0], shapes[name][1]) for name in in_step]

    def open(self, variant: Variant, threads: int) -> Engine:
        """Open the engine that runs a variant. Raises `ConfigError` for a baseline without a checkpoint."""
        bundle = self._bundles[variant.bundle]
        if variant.is_engine:
            from jukebox_deploy.jobs.opening.bundle import bundle_engine

            on_cpu = self.device == Provider.CPU
            options = OnnxRuntimeOptions(self.device, threads if on_cpu else None, map_weights=variant.mapped)
            tensorrt = None if bundle.manifest.target is Target.ONNXRUNTIME else self._tensorrt
            return bundle_engine(bundle, options, tensorrt)
        opener = partial(self._function, threads=threads, compiled=variant.backend is Backend.TORCH_COMPILE)
        if variant.backend in _EAGER_ENGINES:
            records = self.device == Provider.CUDA and variant.backend in _OTHER_STEPS
            recorder = Recorder(TorchRecording) if records else None
            return EagerEngine(self.config, bundle.graphs, opener, self.device, recorder)
        return SequentialEngine(
            self.config, bundle.graphs, opener, partial(_SEQUENTIAL[variant.backend], self), threads, self.device
        )

    def has_loaded(self, level: int | None) -> bool:
        """Return whether the PyTorch model of a level (`None`: the VQ-VAE) is loaded already."""
        return level in self._models

    def prior(self, level: int) -> Prior:
        """Return the PyTorch prior of a level, which all baselines share."""
        from jukebox_deploy.models.prior import Prior

        model = self._model(level)
        assert isinstance(model, Prior)
        return model

    def _model(self, level: int | None) -> VQVAE | Prior:
        from jukebox_deploy.jobs.opening.eager import load_model

        if self._checkpoint is None:
            raise ConfigError("baselines need the weights of a checkpoint bundle; name it with --against.")
        if level not in self._models:
            model = load_model(self._checkpoint, level, self.first.manifest.precision)
            self._models[level] = model.to(self.device)
        return self._models[level]

    def _function(self, spec: GraphSpec, threads: int, compiled: bool) -> GraphFunction:
        from jukebox_deploy.jobs.opening.eager import graph_function

        return graph_function(spec, self._model(spec.model_level), threads, compiled)


def _growing_caches(subjects: Subjects, level: int) -> SequentialPrior:
    return GrowingCachePrior(subjects.prior(level))


def _hugging_face(subjects: Subjects, level: int) -> SequentialPrior:
    return HuggingFacePrior(subjects.prior(level), subjects.config.prior(level))


_SEQUENTIAL: dict[Backend, Callable[[Subjects, int], SequentialPrior]] = {
    Backend.EAGER: _growing_caches,
    Backend.HUGGING_FACE: _hugging_face,
}


def open_subjects(
    bundles: Sequence[Path],
    checkpoint: Path | None,
    device: Provider = Provider.CPU,
    tensorrt: TensorRtOptions | None = None,
) -> Subjects:
    """Open engine bundles and their checkpoint bundle, to be run on a device, one of `PYTORCH_PROVIDERS`.

    Raises `EngineError` for a bundle that is damaged or of another checkpoint, and what `Subjects` raises.
    """
    opened = [open_bundle(folder) for folder in bundles]
    if checkpoint is None:
        return Subjects(opened, None, device, tensorrt)
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    return Subjects(opened, CheckpointBundle.open(checkpoint), device, tensorrt)


def choose_baselines(
    subjects: Subjects, baselines: Sequence[Backend], kind: WorkloadKind, prior: PriorConfig | None, slots: int
) -> tuple[list[Variant], list[str]]:
    """Return the baselines that can be measured in a workload, and a note for each of the others that says why not.

    `prior`: of the workload; `None` for encode, decode and songs. Notes are sentences without a full stop.
    """
    variants, notes = [], []
    for backend in baselines:
        variant = subjects.baseline(backend)
        reason = variant.reason_to_leave_out(kind)
        reason = reason or _reason_to_leave_out(subjects, backend, baselines, kind, prior, slots)
        if reason:
            notes.append(f"{backend} was not measured: {reason}")
        else:
            variants.append(variant)
    return variants, notes


def _reason_to_leave_out(
    subjects: Subjects,
    backend: Backend,
    baselines: Sequence[Backend],
    kind: WorkloadKind,
    prior: PriorConfig | None,
    slots: int,
) -> str | None:
    if backend not in baselines_of(subjects.device):
        return f"it runs only with --device {_ONLY_DEVICE[backend]}"
    if backend is Backend.HUGGING_FACE:
        if kind not in _CACHE_WORKLOADS or prior is None:
            return "it is set up for step and prefill only"
        return reason_to_leave_out(prior, subjects.first.manifest.precision)
    if backend is Backend.TORCH_COMPILE:
        return _reason_not_to_compile(subjects.device)
    if kind is WorkloadKind.SONG:
        one_position = backend is Backend.EAGER and slots > 1
        return "all its slots must be at one position, which those of different songs are not" if one_position else None
    if backend is Backend.EAGER_STATIC and kind not in _CACHE_WORKLOADS and Backend.EAGER in baselines:
        return f"in a workload without caches it is the same as {Backend.EAGER}"
    return None


@cache
def _reason_not_to_compile(device: str) -> str | None:
    from jukebox_deploy.jobs.opening.eager import WITHOUT_COMPILING
    from jukebox_deploy.models.compilation import require_compilation

    try:
        require_compilation(device, EngineError, WITHOUT_COMPILING)
    except EngineError as error:
        return str(error).removesuffix(".")  # notes have no full stop
    return None
