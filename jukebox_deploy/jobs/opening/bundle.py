"""Create the engine that runs an opened engine bundle of any target. Nothing here imports PyTorch."""

from __future__ import annotations

from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine, open_tensorrt
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError
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
