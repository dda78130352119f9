"""From a declared graph to an ONNX model whose initialisers point into a weight file.

The model is built on fake tensors, so tracing a five-billion-parameter prior takes no more memory
than tracing a tiny one.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import onnxscript.optimizer
import torch
from onnxscript.onnx_opset import opset24 as op
from torch._subclasses.fake_tensor import FakeTensorMode  # the only way to trace without weights

from jukebox_deploy.contract import DimensionRange, GraphSpec, TensorSpec, dimension_symbol
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.graph_modules import GraphModule, graph_module
from jukebox_deploy.export.weights import WeightFile
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE

OPSET = 24
"""The first opset with `TensorScatter`."""

MODEL_PREFIXES = ("prior.", "vqvae.")
"""Under which names the graph modules hold their models."""


def _cache_update(past: Any, update: Any, index: Any) -> Any:
    return op.TensorScatter(past, update, index, axis=2, mode="linear")


def _stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    # TopK over the whole axis puts the lower index first among equals, as a stable sort does.
    length: Any = op.Constant(value_ints=[values.shape[dim]])
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {
        torch.ops.jukebox_deploy.cache_update.default: _cache_update,
        torch.ops.aten.sort.stable: _stable_sort,
    }


def trace(spec: GraphSpec, build_model: Callable[[], VQVAE | Prior]) -> ir.Model:
    """Trace the function of a graph; its parameters are named but have no values yet (see `tie`).

    `build_model` makes the graph's model; it is called on fake tensors. Raises `ExportError`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        return _export(graph_module(spec, build_model()), spec)


def parameters(model: ir.Model) -> dict[str, str]:
    """The parameters of a traced graph: initialiser -> name in the graph's model."""
    names = {}
    for initialiser in model.graph.initializers:
        prefix = next((p for p in MODEL_PREFIXES if initialiser.startswith(p)), None)
        if prefix is not None:
            names[initialiser] = initialiser.removeprefix(prefix)
    return names


def parameter_dtypes(model: ir.Model) -> dict[str, torch.dtype]:
    """The dtype in which a traced graph wants each parameter, by name in the graph's model."""
    initialisers = model.graph.initializers
    return {name: _TORCH_TYPES[initialisers[initialiser].dtype] for initialiser, name in parameters(model).items()}


_TORCH_TYPES: dict[ir.DataType | None, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
}


def tie(model: ir.Model, weights: WeightFile, name: str) -> None:
    """Point the parameters of a traced graph into a weight file, then simplify the graph."""
    for initialiser, parameter in parameters(model).items():
        model.graph.initializers[initialiser].const_value = weights.external_tensor(parameter, initialiser)
    onnxscript.optimizer.optimize_ir(model)
    for clean in (ir_passes.CommonSubexpressionEliminationPass(), ir_passes.ClearMetadataAndDocStringPass()):
        clean(model)
    model.producer_name, model.producer_version = "jukebox-deploy", None
    model.graph.name = name


def _export(module: GraphModule, spec: GraphSpec) -> ir.Model:
    arguments = tuple(_example(t, _example_sizes(spec)) for t in spec.inputs)
    with _quiet():
        try:
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                opset_version=OPSET,
                input_names=[t.input_name for t in spec.inputs],
                output_names=[t.output_name for t in spec.outputs],
                dynamic_shapes=(_dynamic_shapes(spec),),
                custom_translation_table=_translations(),
                optimize=False,  # folding needs real weights, which come later
                verbose=False,
            )
        except Exception as error:  # torch.onnx raises many kinds; the first line says what
            raise ExportError(f"{spec.name} could not be traced: {str(error).splitlines()[0]}") from error
    assert program is not None
    return program.model


def _example_sizes(spec: GraphSpec) -> dict[str, int]:
    """Sizes to trace with: above 1, which tracing would take for a constant."""
    return {r.symbol: r.minimum if r.minimum == r.maximum else max(r.minimum, 2) for r in spec.ranges}


def _example(tensor: TensorSpec, sizes: dict[str, int]) -> torch.Tensor:
    return torch.empty(tensor.shape(sizes), dtype=getattr(torch, tensor.dtype))


def _dynamic_shapes(spec: GraphSpec) -> tuple[dict[int, Any], ...]:
    dims = {r.symbol: torch.export.Dim(r.symbol, min=r.minimum, max=_upper_bound(r)) for r in spec.ranges}
    fixed = {r.symbol for r in spec.ranges if r.minimum == r.maximum}
    return tuple(
        {
            axis: factor * dims[symbol] if factor > 1 else dims[symbol]
            for axis, (symbol, factor) in enumerate(map(dimension_symbol, tensor.dims))
            if symbol is not None and symbol not in fixed
        }
        for tensor in spec.inputs
    )


def _upper_bound(dimension: DimensionRange) -> int:
    # Tracing needs room to reason about sizes; the engines hold to the declared maximum.
    return max(dimension.maximum, 4)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what the exporter says about packages and deprecations that are not ours."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
