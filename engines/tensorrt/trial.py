"""A trial build of a tiny graph, which finds in a second what would otherwise end a long build."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from jukebox_deploy.contract import GraphSpec, Role, TensorSpec
from jukebox_deploy.engines.tensorrt.build import BuildOptions, build_engine

_WIDTH = 64
_DTYPE = "float16"  # every supported GPU can multiply it
_TENSORS = (
    TensorSpec("rows", _DTYPE, (1, _WIDTH), Role.INPUT),
    TensorSpec("products", _DTYPE, (1, _WIDTH), Role.OUTPUT),
)


def try_build(options: BuildOptions, spec: GraphSpec) -> None:
    """Build a graph with a single matrix product, under the name and with the options of a real graph.

    Raises `EngineError` as `build_engine` does: for a builder that does not start on this machine, for GPUs that the
    flavour does not support, and for features and timing caches that are not possible.
    """
    with tempfile.TemporaryDirectory(prefix=".trial-") as name:
        folder = Path(name)
        path = folder / "trial.onnx"
        _save_product(path)
        caches = None if options.timing_caches is None else folder
        tried = replace(options, slots=(), timing_caches=caches)
        build_engine(path, GraphSpec(spec.kind, spec.level, _TENSORS, ()), folder / "trial.engine", tried)


def _save_product(path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    values = [helper.make_tensor_value_info(t.name, onnx.TensorProto.FLOAT16, list(t.dims)) for t in _TENSORS]
    matrix = numpy_helper.from_array(np.eye(_WIDTH, dtype=_DTYPE), "matrix")
    node = helper.make_node("MatMul", ["rows", "matrix"], ["products"])
    graph = helper.make_graph([node], "trial", values[:1], values[1:], [matrix])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11), path)
