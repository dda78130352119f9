"""Sizes that may change are traced as numbers that stand in for them, and put back as symbols afterwards.

Tracing with symbolic sizes takes three to four times as long: torch reasons about every stride of
every tensor. Tensors are fake while tracing, so a stand-in may be a prime far above any size of a
model; every number of a traced graph that is a multiple of it can only have come from that size.
A number that is as large but no multiple is an error, and all graphs are compared with the model
at other sizes than the stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.errors import ExportError

_PRIMES = (1_000_003, 7_000_003)
"""Larger than any fixed size of a model; their multiples meet only far above every size."""

_NO_END = (np.iinfo(np.int32).max, np.iinfo(np.int64).max)
"""Ends of slices that go on to the end."""


def sizes_to_trace(spec: GraphSpec) -> dict[str, int]:
    """A size for each symbol of a graph: the only possible one, or a stand-in."""
    primes = iter(_PRIMES)
    return {r.symbol: r.minimum if r.minimum == r.maximum else next(primes) for r in spec.ranges}


def restore_symbols(graph: ir.Graph, inputs: Sequence[ir.Value], sizes: Mapping[str, int]) -> None:
    """Replace in a traced graph, and in the shapes of its values, every stand-in by its symbol.

    At run time a size is read from the first of `inputs` that has it. `sizes`: of `sizes_to_trace`.
    Raises `ExportError` for a number that could not be traced back to one symbol.
    """
    symbols = {symbol: size for symbol, size in sizes.items() if size in _PRIMES}
    if not symbols:
        return
    restorer = _Restorer(graph, inputs, symbols)
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            constant = None if value is None else _integers(value)
            if constant is not None:
                restorer.restore(node, index, constant)
    for value in _values(graph):
        if value.shape is not None:
            value.shape = ir.Shape([_symbolic(d, symbols) for d in value.shape])


@dataclass(frozen=True)
class _Multiple:
    """A number of a traced graph: `factor` times the size of a symbol."""

    symbol: str
    factor: int


def _as_multiple(number: int, symbols: Mapping[str, int]) -> _Multiple | None:
    """None for a number that no stand-in is behind; the end of a slice without an end is one.

    Multiples go far beyond 32 bits: slots times the positions of a window.
    """
    if number < min(symbols.values()) or number in _NO_END:
        return None
    for symbol, size in symbols.items():
        if number % size == 0:
            return _Multiple(symbol, number // size)
    raise ExportError(f"the traced graph has the number {number}, which comes from none of {dict(symbols)} alone.")


def _symbolic(dimension: int | ir.SymbolicDim, symbols: Mapping[str, int]) -> int | str | None:
    """A dimension of a traced value: as it is, a symbol, or unknown."""
    if not isinstance(dimension, int):
        return dimension.value
    if dimension < min(symbols.values()):
        return dimension
    return next((symbol for symbol, size in symbols.items() if size == dimension), None)


class _Restorer:
    """Replaces constants of one graph; reads each size once."""

    def __init__(self, graph: ir.Graph, inputs: Sequence[ir.Value], symbols: Mapping[str, int]) -> None:
        self._graph = graph
        self._inputs = inputs
        self._symbols = symbols
        self._begin = graph[0]  # sizes are read before everything else
        self._multiples: dict[_Multiple, ir.Value] = {}

    def restore(self, node: ir.Node, index: int, constant: np.ndarray) -> None:
        """Replace one constant input of a node, if a stand-in is in it."""
        multiples = [_as_multiple(int(number), self._symbols) for number in constant.flat]
        if not any(multiples):
            return
        if node.op_type == "Reshape" and sum(m is not None for m in multiples) == 1:
            node.replace_input_with(
                index, self._constant([-1 if m else int(n) for n, m in zip(constant, multiples, strict=True)])
            )
            return
        if constant.ndim > 1:
            raise ExportError(f"the traced graph has a table of shape {constant.shape} that depends on a size.")
        pieces = [
            self._size(m) if m else self._constant([int(n)]) for n, m in zip(constant.flat, multiples, strict=True)
        ]
        joined = pieces[0] if len(pieces) == 1 else self._add("Concat", pieces, axis=0)
        node.replace_input_with(index, joined if constant.ndim else self._add("Squeeze", [joined]))

    def _size(self, multiple: _Multiple) -> ir.Value:
        """A multiple of a size as a tensor of one number, read from an input."""
        if multiple not in self._multiples:
            value, axis, factor = self._source(multiple.symbol)
            size = self._add("Shape", [value], start=axis, end=axis + 1)
            if multiple.factor != factor:
                size = size if factor == 1 else self._add("Div", [size, self._constant([factor])])
                size = size if multiple.factor == 1 else self._add("Mul", [size, self._constant([multiple.factor])])
            self._multiples[multiple] = size
        return self._multiples[multiple]

    def _source(self, symbol: str) -> tuple[ir.Value, int, int]:
        """The first input with an axis of this size: the input, the axis, and how many times the size it has."""
        for value in self._inputs:
            for axis, dimension in enumerate(value.shape or ()):
                found = _as_multiple(dimension, self._symbols) if isinstance(dimension, int) else None
                if found is not None and found.symbol == symbol:
                    return value, axis, found.factor
        raise ExportError(f"a part of the graph needs the size {symbol}, which none of its inputs has.")

    def _constant(self, numbers: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(np.array(numbers, dtype=np.int64))
        return self._insert(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))

    def _add(self, operator: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        return self._insert(ir.node(operator, inputs, attributes))

    def _insert(self, node: ir.Node) -> ir.Value:
        self._graph.insert_before(self._begin, node)
        return node.outputs[0]


def _integers(value: ir.Value) -> np.ndarray | None:
    """The numbers of a constant of 64-bit integers."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.INT64 else None


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]
