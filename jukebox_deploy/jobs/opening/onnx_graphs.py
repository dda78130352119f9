"""From an opened bundle to an engine on ONNX Runtime. Sampling needs no more, so nothing here imports PyTorch."""

from __future__ import annotations

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import GraphOptions, declare_graphs


def onnx_engine(bundle: EngineBundle, options: OnnxRuntimeOptions | None = None) -> OnnxRuntimeEngine:
    """The graphs of an opened ONNX bundle on ONNX Runtime.

    `EngineError` for a bundle of another target, or of a version whose graphs had other inputs.
    """
    if bundle.manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {bundle.manifest.target} engines, which ONNX Runtime does not run; give the folder "
            "of ONNX graphs that `jukebox-deploy export` made."
        )
    require_current_tables(bundle)
    return OnnxRuntimeEngine(bundle.manifest.config, bundle.graphs, bundle.paths, options, bundle.parts)


def require_current_tables(bundle: EngineBundle) -> None:
    """Raise `EngineError` unless this version declares the graphs of a bundle just as the bundle does."""
    declared = declare_graphs(bundle.manifest.config, _options_of(bundle))
    if odd := [name for name, spec in bundle.graphs.items() if declared.get(name) != spec]:
        raise EngineError(
            f"{bundle.folder}: the tables of {', '.join(odd)} are not those of this version. Export again."
        )


def _options_of(bundle: EngineBundle) -> GraphOptions:
    """The options that the graphs of a bundle were declared with."""
    # The step alone has the slots that were asked for; a prefill takes fewer as well, the others have one window.
    graphs = sorted(bundle.graphs.values(), key=lambda spec: (spec.kind is not GraphKind.STEP, not spec.states))
    ranges = [r for spec in graphs if spec.model_level is not None for r in spec.ranges if r.symbol == "B"]
    slots = (ranges[0].minimum, ranges[0].optimum, ranges[0].maximum) if ranges else GraphOptions().slots
    logits = any(tensor.name == "logits" for spec in graphs for tensor in spec.tensors)
    return GraphOptions(bundle.manifest.precision, slots, logits)
