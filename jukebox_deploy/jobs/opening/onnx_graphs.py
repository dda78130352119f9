"""Create the engine that runs an ONNX bundle on ONNX Runtime. For sampling, so nothing here imports PyTorch."""

from __future__ import annotations

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.listing import words_of


def onnx_engine(bundle: EngineBundle, options: OnnxRuntimeOptions | None = None) -> OnnxRuntimeEngine:
    """Open the graphs of an ONNX bundle on ONNX Runtime.

    Raises `EngineError` for a bundle of another target, or of a version whose graphs had other inputs.
    """
    if bundle.manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {bundle.manifest.target} engines, which ONNX Runtime does not run; give the folder "
            "of ONNX graphs that `jukebox-deploy export` made."
        )
    require_current_tables(bundle)
    return OnnxRuntimeEngine(bundle.manifest.config, bundle.graphs, bundle.paths, options, bundle.parts)


def require_current_tables(bundle: EngineBundle) -> None:
    """Raise `EngineError` unless this version declares the same tensor tables for the graphs as the bundle."""
    declared = declare_graphs(bundle.manifest.config, _options_of(bundle))
    if odd := [name for name, spec in bundle.graphs.items() if declared.get(name) != spec]:
        raise EngineError(
            f"{bundle.folder}: the tables of {words_of(odd)} are not those of this version. Export again."
        )


def _options_of(bundle: EngineBundle) -> GraphOptions:
    """Return the options that the graphs of a bundle were declared with."""
    # Only the step has the requested range of slots: a prefill also takes fewer, other graphs have one window.
    graphs = sorted(bundle.graphs.values(), key=lambda spec: (spec.kind is not GraphKind.STEP, not spec.states))
    known = next((spec.range("B") for spec in graphs if spec.model_level is not None), None)
    slots = (known.minimum, known.optimum, known.maximum) if known else GraphOptions().slots
    logits = any(tensor.name == "logits" for spec in graphs for tensor in spec.tensors)
    return GraphOptions(bundle.manifest.precision, slots, logits)
