"""Tracing of a declared graph to an ONNX model, whose initialisers refer to a weight file.

Models are built with fake tensors, so tracing a prior with five billion parameters takes no more memory than tracing a
tiny one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import onnx_ir as ir
import torch
from onnxscript.onnx_opset import opset24 as op
from torch._subclasses.fake_tensor import FakeTensorMode  # the only way to trace without weights

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.assembly import TracedModule, assemble, cut_pieces
from jukebox_deploy.export.graph_calls import GraphCalls, Piece, SideBySide, cut_calls, graph_calls, make_piece
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.stand_ins import sizes_to_trace
from jukebox_deploy.export.weights import WeightFile
from jukebox_deploy.listing import words_of
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE

ModelBuilder = Callable[[], VQVAE | Prior]

OPSET = 24
"""The first opset with `TensorScatter`."""


def _cache_update(past: Any, update: Any, index: Any) -> Any:
    return op.TensorScatter(past, update, index, axis=2, mode="linear")


def _stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    # TopK over the whole axis puts equal values in order of their index, like a stable sort.
    length: Any = op.Constant(value_ints=[values.shape[dim]])
    return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


def _index(values: Any, indices: Sequence[Any]) -> Any:
    # The models only index the first axis with one tensor, which is a Gather; torch's translation makes a GatherND.
    (index,) = indices
    return op.Gather(values, index, axis=0)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    return {
        torch.ops.jukebox_deploy.cache_update.default: _cache_update,
        torch.ops.aten.index.Tensor: _index,
        torch.ops.aten.sort.stable: _stable_sort,
    }


@dataclass(frozen=True)
class GraphToTrace:
    """A graph, a function that builds its model (with fake tensors), and the parts into which the graph is cut."""

    spec: GraphSpec
    build_model: ModelBuilder
    parts: tuple[GraphSpec, ...] = ()

    @property
    def tables(self) -> tuple[GraphSpec, ...]:
        """The declarations of the resulting models: those of the parts, or the graph's own."""
        return self.parts or (self.spec,)


def trace_together(graphs: Sequence[GraphToTrace]) -> list[list[ir.Model]]:
    """Trace several graphs in one call of the exporter, because each call has a fixed cost of a second or two.

    Returns the models of each graph's `tables`. Parameters are inputs of a traced graph after the declared ones (see
    `tie`). Raises `ExportError`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = [graph_calls(graph_module(graph.spec, graph.build_model())) for graph in graphs]
        pieces = [_make_pieces(graph.spec, calls) for graph, calls in zip(graphs, made, strict=True)]
        traced = _export(words_of(graph.spec.name for graph in graphs), list(chain.from_iterable(pieces)))
    cut = iter(cut_pieces(traced, list(chain.from_iterable(pieces))))
    return [
        _assemble_tables(graph, calls, [next(cut) for _ in mine])
        for graph, calls, mine in zip(graphs, made, pieces, strict=True)
    ]


def _assemble_tables(graph: GraphToTrace, made: GraphCalls, modules: Sequence[TracedModule]) -> list[ir.Model]:
    sizes = sizes_to_trace(graph.spec)
    functions = {module.name: module.as_function(sizes) for module in modules}
    return [assemble(table, cut_calls(graph.spec, made.calls, table), functions) for table in graph.tables]


def _make_pieces(spec: GraphSpec, made: GraphCalls) -> list[Piece]:
    """Make a piece of the first call of every module. All calls run, to get example inputs for later ones."""
    sizes = sizes_to_trace(spec)
    tensors = {t.input_name: torch.empty(t.shape(sizes), dtype=getattr(torch, t.dtype)) for t in spec.inputs}
    pieces: dict[str, Piece] = {}
    for call in made.calls:
        piece = make_piece(made.modules[call.module], call, [tensors[name] for name in call.inputs])
        tensors |= dict(zip(call.outputs, piece.results, strict=True))
        pieces.setdefault(call.module, piece)
    return list(pieces.values())


def parameter_dtypes(spec: GraphSpec, model: ir.Model) -> dict[str, torch.dtype]:
    """Return the dtype that a traced graph needs for each parameter."""
    return {str(value.name): _TORCH_TYPES[value.dtype] for value in parameters(spec, model)}


def parameters(spec: GraphSpec, model: ir.Model) -> list[ir.Value]:
    """Return the parameters of a traced graph, which are its inputs after the declared ones."""
    return list(model.graph.inputs)[len(spec.inputs) :]


_TORCH_TYPES: dict[ir.DataType | None, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
}


def tie(spec: GraphSpec, model: ir.Model, weights: WeightFile) -> None:
    """Turn the parameters of a traced graph into initialisers that refer to a weight file."""
    for value in parameters(spec, model):
        model.graph.inputs.remove(value)
        value.const_value = weights.external_tensor(str(value.name))
        model.graph.initializers.add(value)


def _export(graphs: str, pieces: Sequence[Piece]) -> ir.Model:
    arguments = tuple(argument for piece in pieces for argument in piece.arguments)
    with _quiet():
        try:
            program = torch.onnx.export(
                SideBySide(pieces),
                arguments,
                dynamo=True,
                opset_version=OPSET,
                custom_translation_table=_translations(),
                optimize=False,  # the optimiser would read the weights, which are fake
                verbose=False,
            )
        except Exception as error:  # torch.onnx has many exception types
            raise ExportError(f"{graphs} could not be traced: {_reason(error)}") from error
    assert program is not None
    return program.model


def _reason(error: BaseException) -> str:
    """Combine the first line of an error, which says where torch failed, with that of its root cause."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    why = "" if cause is error else f" ({type(cause).__name__}: {_first_line(cause)})"
    return _first_line(error) + why


def _first_line(error: BaseException) -> str:
    """Return the first line of an error message, without terminal colours and torch's `Next steps:`."""
    lines = _COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0].removesuffix(" Next steps:")


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's messages about other packages and deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
