"""Create the engine that runs an opened engine bundle of any target. Nothing here imports PyTorch."""

from __future__ import annotations

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine, open_tensorrt
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError, SamplingError
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine, require_current_tables


def bundle_engine(
    bundle: EngineBundle, onnxruntime: OnnxRuntimeOptions | None = None, tensorrt: TensorRtOptions | None = None
) -> Engine:
    """Open the graphs of a bundle on the target they were made for, with the options of that target.

    Raises `NoDeviceError` for TensorRT engines if there is no GPU, and `EngineError` for a bundle of another version
    or GPU, and for TensorRT options with a bundle for ONNX Runtime.
    """
    if bundle.manifest.target is Target.ONNXRUNTIME:
        if tensorrt is not None:
            raise EngineError(f"{bundle.folder} holds ONNX graphs; drop the options of engines for TensorRT.")
        return onnx_engine(bundle, onnxruntime)
    return tensorrt_engine(bundle, tensorrt)


def tensorrt_engine(bundle: EngineBundle, options: TensorRtOptions | None = None) -> TensorRtEngine:
    """Open a bundle of TensorRT engines, of either flavour."""
    require_current_tables(bundle)
    return open_tensorrt(bundle, options)


def require_slots_of_bundle(bundle: EngineBundle, slots: int) -> None:
    """Raise `SamplingError` for a number of slots that a step of the bundle does not take."""
    for name, spec in bundle.graphs.items():
        if spec.kind is not GraphKind.STEP:
            continue
        taken = spec.range("B")
        if not taken.minimum <= slots <= taken.maximum:
            raise SamplingError(
                f"{bundle.folder}: {slots} slots are asked for, and {name} takes {taken.minimum} to {taken.maximum}. "
                "Choose --slots in that range, or `export` again with another --batch (engines: `build` with other "
                "--slots)."
            )
