"""From an opened bundle to an engine on ONNX Runtime. Sampling needs no more, so nothing here imports PyTorch."""

from __future__ import annotations

from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError


def onnx_engine(bundle: EngineBundle, options: OnnxRuntimeOptions | None = None) -> OnnxRuntimeEngine:
    """The graphs of an opened ONNX bundle on ONNX Runtime; `EngineError` for a bundle of another target."""
    if bundle.manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {bundle.manifest.target} engines. This version builds them but does not run them "
            "yet, that takes a GPU runner; give the folder of ONNX graphs that `jukebox-deploy export` made."
        )
    files = {name: bundle.folder / entry.file for name, entry in bundle.manifest.graphs.items()}
    return OnnxRuntimeEngine(bundle.manifest.config, bundle.graphs, files, options)
