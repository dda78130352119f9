"""The sides of a comparison: engine bundles of one checkpoint, and baselines on the same weights.

A variant is plain data, so that another process can open it too.
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
from jukebox_deploy.costs import linear_weight_bytes, step_bytes
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
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

_OF_PRIORS = (WorkloadKind.STEP, WorkloadKind.PREFILL)
_OUR_OWN = (Backend.EAGER_STATIC, Backend.EAGER_RECORDED, Backend.TORCH_COMPILE)
_STEPS_DIFFER = (Backend.EAGER_RECORDED, Backend.TORCH_COMPILE)  # from eager-static, and nothing else
_DEVICE = {Backend.EAGER_RECORDED: "cuda", Backend.HUGGING_FACE: "cpu"}


def baselines_of(device: str) -> tuple[Backend, ...]:
    """The baselines that run on a device."""
    return tuple(backend for backend in BASELINES if _DEVICE.get(backend, device) == device)


@dataclass(frozen=True)
class Variant:
    """Who does the work, on what weights."""

    backend: Backend
    precision: Precision
    weights: LinearWeights
    bundle: Path  # the engine bundle that runs; for a baseline the one whose tables it takes
    checkpoint: Path | None = None  # the checkpoint bundle of a baseline
    mapped: bool = False  # whether an engine leaves large weights where their file is mapped

    @property
    def stored(self) -> str:
        """How the weights are stored, in a word."""
        if self.mapped:
            return "mapped"
        return str(self.precision if self.weights is LinearWeights.AS_PRECISION else self.weights)

    @property
    def is_engine(self) -> bool:
        """Whether it is no baseline."""
        return self.backend not in BASELINES

    def reason_to_leave_out(self, kind: WorkloadKind) -> str | None:
        """Why there is nothing to learn from it in a workload."""
        if self.backend in _STEPS_DIFFER and kind not in (WorkloadKind.STEP, WorkloadKind.SONG):
            return f"nothing but its steps differs from {Backend.EAGER_STATIC}"
        return None


class Subjects:
    """Opened bundles of one checkpoint. PyTorch's models are loaded once and shared by the baselines."""

    def __init__(
        self,
        bundles: Sequence[EngineBundle],
        checkpoint: CheckpointBundle | None,
        device: str = "cpu",
        tensorrt: TensorRtOptions | None = None,
    ) -> None:
        """`device`: "cpu" or "cuda", of all variants; `tensorrt`: how engines for TensorRT are run.

        Raises `EngineError` for bundles of another checkpoint, `ConfigError` without bundles, for one that does
        not run on the device, and for options of TensorRT without engines for it.
        """
        if not bundles:
            raise ConfigError("there is no engine bundle to measure; name at least one.")
        for bundle in bundles:
            if bundle.manifest.target is not Target.ONNXRUNTIME and device == "cpu":
                raise ConfigError(
                    f"{bundle.folder} holds {bundle.manifest.target} engines, which run on a GPU; add --device cuda, "
                    "so that what they are measured against runs there too."
                )
        if tensorrt is not None and all(bundle.manifest.target is Target.ONNXRUNTIME for bundle in bundles):
            raise ConfigError("no bundle here holds engines for TensorRT; drop the options of those.")
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
        """The model."""
        return self.first.manifest.config

    @cached_property
    def engines(self) -> list[Variant]:
        """One variant per bundle."""
        manifests = {folder: bundle.manifest for folder, bundle in self._bundles.items()}
        return [
            Variant(Backend(str(m.target)), m.precision, m.linear_weights, folder) for folder, m in manifests.items()
        ]

    def baseline(self, backend: Backend) -> Variant:
        """A baseline in the precision of the first bundle."""
        folder = None if self._checkpoint is None else self._checkpoint.folder
        return Variant(backend, self.first.manifest.precision, LinearWeights.AS_PRECISION, self.first.folder, folder)

    def threads(self, variant: Variant, graph: GraphSpec) -> int:
        """Threads that pay for a graph."""
        return worthwhile_threads(graph, self._weight_bytes(variant, graph))

    def _weight_bytes(self, variant: Variant, graph: GraphSpec) -> int:
        manifest = self._bundles[variant.bundle].manifest
        return manifest.bytes_of(manifest.graph(graph.kind, graph.level).weights)

    def mapped_engines(self, graph: GraphSpec) -> list[Variant]:
        """The engines again, those whose weights in a graph are large enough to be left mapped."""
        fit = [v for v in self.engines if v.weights is LinearWeights.AS_PRECISION]
        return [replace(v, mapped=True) for v in fit if self._weight_bytes(v, graph) > LARGE_WEIGHTS]

    def step_bytes(self, variant: Variant, level: int, slots: int) -> int:
        """Bytes that a step of a prior moves, of this variant's own weights."""
        prior, precision = self.config.prior(level), variant.precision
        total = step_bytes(prior, slots, precision, variant.weights)
        for shape in self._kept_layers(variant, level):  # counted as integers, but they stayed as they were
            total += linear_weight_bytes(shape, precision, LinearWeights.AS_PRECISION)
            total -= linear_weight_bytes(shape, precision, variant.weights)
        return total

    def _kept_layers(self, variant: Variant, level: int) -> list[tuple[int, int]]:
        """Shapes of the matrices in the step that somebody kept in the precision."""
        from jukebox_deploy.checkpoints.layout import component_shapes

        facts = facts_of(self._bundles[variant.bundle].manifest.graph(GraphKind.STEP, level))
        if variant.weights is LinearWeights.AS_PRECISION or facts is None:
            return []
        shapes = component_shapes(self.config.prior(level))
        in_step = [name for name in facts["kept"] if name.startswith("core.") and "encoder_key_value" not in name]
        return [(shapes[name][0], shapes[name][1]) for name in in_step]

    def open(self, variant: Variant, threads: int) -> Engine:
        """The engine of a variant."""
        bundle = self._bundles[variant.bundle]
        if variant.is_engine:
            from jukebox_deploy.jobs.opening.bundle import bundle_engine

            on_cpu = self.device == "cpu"
            options = OnnxRuntimeOptions(self.device, threads if on_cpu else None, map_weights=variant.mapped)
            tensorrt = None if bundle.manifest.target is Target.ONNXRUNTIME else self._tensorrt
            return bundle_engine(bundle, options, tensorrt)
        opener = partial(self._function, threads=threads, compiled=variant.backend is Backend.TORCH_COMPILE)
        if variant.backend in _OUR_OWN:
            recorder = Recorder(TorchRecording) if self.device == "cuda" and variant.backend in _STEPS_DIFFER else None
            return EagerEngine(self.config, bundle.graphs, opener, self.device, recorder)
        return SequentialEngine(
            self.config, bundle.graphs, opener, partial(_SEQUENTIAL[variant.backend], self), threads, self.device
        )

    def has_loaded(self, level: int | None) -> bool:
        """Whether PyTorch has the prior of a level (`None`: the VQ-VAE) already."""
        return level in self._models

    def prior(self, level: int) -> Prior:
        """Our prior of a level, shared."""
        from jukebox_deploy.models.prior import Prior

        model = self._model(level)
        assert isinstance(model, Prior)
        return model

    def _model(self, level: int | None) -> VQVAE | Prior:
        from jukebox_deploy.jobs.opening.eager import load_model

        if self._checkpoint is None:
            raise ConfigError("baselines run the weights of a checkpoint bundle; name it with --against.")
        if level not in self._models:
            model = load_model(self._checkpoint, level, self.first.manifest.precision)
            self._models[level] = model.to(self.device)
        return self._models[level]

    def _function(self, spec: GraphSpec, threads: int, compiled: bool) -> GraphFunction:
        from jukebox_deploy.jobs.opening.eager import graph_function

        return graph_function(spec, self._model(spec.model_level), threads, compiled)


def _growing(subjects: Subjects, level: int) -> SequentialPrior:
    return GrowingCachePrior(subjects.prior(level))


def _hugging_face(subjects: Subjects, level: int) -> SequentialPrior:
    return HuggingFacePrior(subjects.prior(level), subjects.config.prior(level))


_SEQUENTIAL: dict[Backend, Callable[[Subjects, int], SequentialPrior]] = {
    Backend.EAGER: _growing,
    Backend.HUGGING_FACE: _hugging_face,
}


def open_subjects(
    bundles: Sequence[Path],
    checkpoint: Path | None,
    device: str = "cpu",
    tensorrt: TensorRtOptions | None = None,
) -> Subjects:
    """Open folders whose hashes are right, to be run on a device, "cpu" or "cuda"."""
    opened = [open_bundle(folder) for folder in bundles]
    if checkpoint is None:
        return Subjects(opened, None, device, tensorrt)
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    return Subjects(opened, CheckpointBundle.open(checkpoint), device, tensorrt)


def choose_baselines(
    subjects: Subjects, baselines: Sequence[Backend], kind: WorkloadKind, prior: PriorConfig | None, slots: int
) -> tuple[list[Variant], list[str]]:
    """Which baselines take part in a workload, and a sentence for every one that does not."""
    variants, left_out = [], []
    for backend in baselines:
        variant = subjects.baseline(backend)
        reason = variant.reason_to_leave_out(kind)
        reason = reason or _reason_to_leave_out(subjects, backend, baselines, kind, prior, slots)
        if reason:
            left_out.append(f"{backend} is left out: {reason}")
        else:
            variants.append(variant)
    return variants, left_out


def _reason_to_leave_out(
    subjects: Subjects,
    backend: Backend,
    baselines: Sequence[Backend],
    kind: WorkloadKind,
    prior: PriorConfig | None,
    slots: int,
) -> str | None:
    if backend not in baselines_of(subjects.device):
        return f"it is set up for --device {_DEVICE[backend]}"
    if backend is Backend.HUGGING_FACE:
        if kind not in _OF_PRIORS or prior is None:
            return "only step and prefill are set up for it"
        return reason_to_leave_out(prior, subjects.first.manifest.precision)
    if backend is Backend.TORCH_COMPILE:
        return _reason_not_to_compile(subjects.device)
    if kind is WorkloadKind.SONG:
        return "its slots stand at one position" if backend is Backend.EAGER and slots > 1 else None
    if backend is Backend.EAGER_STATIC and kind not in _OF_PRIORS and Backend.EAGER in baselines:
        return f"without caches it is the same as {Backend.EAGER}"
    return None


@cache
def _reason_not_to_compile(device: str) -> str | None:
    from jukebox_deploy.jobs.opening.eager import WITHOUT_COMPILING
    from jukebox_deploy.models.compilation import require_compilation

    try:
        require_compilation(device, EngineError, WITHOUT_COMPILING)
    except EngineError as error:
        return str(error)
    return None
