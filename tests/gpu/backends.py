"""The backends that a machine with a GPU may have, and how each opens the same model; what is missing is a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.device import NoDeviceError, Provider
from jukebox_deploy.engines.eager.replay import TorchRecording
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.sessions import GPU_PROVIDERS, OnnxRuntimeOptions
from jukebox_deploy.engines.replay import Recorder
from jukebox_deploy.engines.tensorrt.build import BuildOptions
from jukebox_deploy.engines.tensorrt.bundle import build_bundle
from jukebox_deploy.engines.tensorrt.capabilities import known_capabilities
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.engines.tensorrt.flavour import load_flavour
from jukebox_deploy.errors import EngineError, JukeboxError
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.export_job import ExportRequest
from jukebox_deploy.jobs.opening.bundle import tensorrt_engine
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.models.compilation import require_compilation


class NotHereError(JukeboxError):
    """A backend that this machine does not have, and why."""


@dataclass(frozen=True)
class Case:
    """How a model is exported and built."""

    precision: Precision = Precision.FP32
    weights: LinearWeights = LinearWeights.AS_PRECISION
    parts: int = 1
    slots: tuple[int, ...] = ()  # of the engines' profiles
    graphs: tuple[str, ...] = ()

    @property
    def export(self) -> ExportRequest:
        """What to export."""
        stored = QuantisationRequest()
        if self.weights is not LinearWeights.AS_PRECISION:
            stored = QuantisationRequest(self.weights, calibration=Calibration.NONE, judge_quality=False)
        return ExportRequest(
            GraphOptions(self.precision),
            self.graphs,
            validate=False,
            tensorrt=TensorRtCheck.NEVER,
            quantisation=stored,
            cutting=Cutting(self.parts),
        )


_UNKNOWING: dict[Target, NoDeviceError] = {}
"""Flavours that do not know the GPU of this machine: no second model is built to find that out."""

UPSAMPLER = ("condition_1", "prefill_1", "step_1")

CASES: Mapping[str, Case] = {
    "fp16": Case(Precision.FP16, graphs=UPSAMPLER),
    "bf16": Case(Precision.BF16, graphs=UPSAMPLER),
    "int8": Case(Precision.FP16, LinearWeights.INT8, graphs=UPSAMPLER),
    "int4": Case(Precision.FP16, LinearWeights.INT4, graphs=UPSAMPLER),
    "fp8": Case(Precision.FP16, LinearWeights.FP8, graphs=UPSAMPLER),
    "fp16 in parts": Case(Precision.FP16, parts=2, graphs=UPSAMPLER),
    "lyrics in fp16": Case(Precision.FP16, graphs=("condition_2", "prefill_2", "step_2")),
}
"""What else than fp32 in one piece is compared with PyTorch, by name."""


@dataclass
class Material:
    """One model for all backends; engines are built when the first backend asks for them."""

    checkpoint: CheckpointBundle
    onnx: EngineBundle
    folder: Path
    compute_capability: str  # of the GPU
    slots: tuple[int, ...] = ()  # of the engines' profiles
    _built: dict[Target, EngineBundle] = field(default_factory=dict)
    _failed: dict[Target, EngineError] = field(default_factory=dict)

    def engines(self, target: Target) -> EngineBundle:
        """The engine bundle of a flavour, built for this GPU, once.

        Raises `NotHereError` if the flavour is not here, or knows nothing of this GPU; a build that fails is a failure.
        """
        try:
            load_flavour(target)
        except EngineError as error:
            raise NotHereError(str(error)) from error
        if known := _UNKNOWING.get(target) or self._failed.get(target):
            raise known
        if target not in self._built:
            try:
                self._built[target] = self._build(target)
            except NoDeviceError as error:
                _UNKNOWING[target] = error
                raise
            except EngineError as error:
                self._failed[target] = error
                raise
        return open_bundle(self._built[target].folder)

    def _build(self, target: Target) -> EngineBundle:
        """Engines that open on this GPU."""
        options = BuildOptions(target, _capabilities(target, self.compute_capability), slots=self.slots)
        built, _ = build_bundle(self.onnx, self.folder / str(target), options)
        with tensorrt_engine(built) as engine:
            engine.prior_session(min(spec.level for spec in engine.graphs.values() if spec.states), 1)
        return built


def _capabilities(target: Target, capability: str) -> tuple[str, ...]:
    """What to build for: this GPU, where the flavour has a name for it."""
    return (capability,) if capability in known_capabilities(load_flavour(target)) else ()


def _eager(recorded: bool = False, compiled: bool = False) -> Callable[[Material], Engine]:
    def opened(material: Material) -> Engine:
        import torch

        if not torch.cuda.is_available():
            raise NotHereError(f"PyTorch {torch.__version__} sees no CUDA device; install its CUDA build")
        if compiled:
            require_compilation("cuda", NotHereError, "test the others")
        recorder = Recorder(TorchRecording) if recorded else None
        graphs = material.onnx.graphs
        return eager_engine(material.checkpoint, graphs, device="cuda", recorder=recorder, compiled=compiled)

    return opened


def _onnxruntime(provider: Provider, cuda_graph: bool = False) -> Callable[[Material], Engine]:
    def opened(material: Material) -> Engine:
        try:
            available = import_onnxruntime().get_available_providers()
        except EngineError as error:
            raise NotHereError(str(error)) from error
        if GPU_PROVIDERS[provider] not in available:
            raise NotHereError(f"this ONNX Runtime has no {GPU_PROVIDERS[provider]}")
        try:
            return onnx_engine(material.onnx, OnnxRuntimeOptions(provider, cuda_graph=cuda_graph))
        except NoDeviceError as error:  # it is compiled in, and its libraries are not here
            raise NotHereError(str(error)) from error

    return opened


def _tensorrt(target: Target, cuda_graph: bool = True) -> Callable[[Material], Engine]:
    def opened(material: Material) -> Engine:
        try:
            options = TensorRtOptions(cuda_graph=cuda_graph, kernel_caches=_kernels(material, target))
            return tensorrt_engine(material.engines(target), options)
        except NoDeviceError as error:
            raise NotHereError(str(error)) from error

    return opened


def _kernels(material: Material, target: Target) -> Path | None:
    """Where the tests share what is compiled; TensorRT compiles when it builds."""
    return material.folder / "kernels" if target is Target.TENSORRT_RTX else None


BACKENDS: Mapping[str, Callable[[Material], Engine]] = {
    "eager": _eager(),
    "eager, recorded": _eager(recorded=True),
    "eager, compiled": _eager(compiled=True),
    "eager, compiled and recorded": _eager(recorded=True, compiled=True),
    "onnxruntime cuda": _onnxruntime(Provider.CUDA),
    "onnxruntime cuda, recorded": _onnxruntime(Provider.CUDA, cuda_graph=True),
    "onnxruntime tensorrt": _onnxruntime(Provider.TENSORRT),
    "onnxruntime tensorrt-rtx": _onnxruntime(Provider.TENSORRT_RTX),
    "tensorrt-rtx": _tensorrt(Target.TENSORRT_RTX),
    "tensorrt-rtx, not recorded": _tensorrt(Target.TENSORRT_RTX, cuda_graph=False),
    "tensorrt": _tensorrt(Target.TENSORRT),
    "tensorrt, not recorded": _tensorrt(Target.TENSORRT, cuda_graph=False),
}
"""By what the table calls them. For what this machine lacks an opener raises `NotHereError`; failures fail."""
