"""Stand-ins: numbers in place of dynamic sizes during tracing, which are replaced by symbols afterwards.

Tracing with symbolic sizes takes three to four times as long, because torch reasons about every stride of every tensor.
Tensors are fake while tracing, so a stand-in can be a prime that is larger than any size of a model. Then a multiple of
it in a traced graph can only come from that size. A number that is as large but not a multiple is an error. All graphs
are also compared with the model at sizes other than the stand-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.listing import words_of

_PRIMES = (1_000_003, 7_000_003)
"""Stand-ins: larger than any fixed size of a model, and without a common multiple in the range of real sizes."""

_NO_END = (np.iinfo(np.int32).max, np.iinfo(np.int64).max)
"""End indices of slices that extend to the end of an axis."""


def sizes_to_trace(spec: GraphSpec) -> dict[str, int]:
    """Return a size for each symbol of a graph: the only possible one, or a stand-in."""
    primes = iter(_PRIMES)
    return {r.symbol: r.minimum if r.minimum == r.maximum else next(primes) for r in spec.ranges}


def restore_symbols(graph: ir.Graph, inputs: Sequence[ir.Value], sizes: Mapping[str, int]) -> None:
    """Replace every stand-in in a traced graph, and in the shapes of its values, by its symbol.

    At run time, a size is read from the first of `inputs` that has it. `sizes` comes from `sizes_to_trace`.
    Raises `ExportError` for a number that cannot be attributed to a single symbol.
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
    """A number in a traced graph that is `factor` times the size of a symbol."""

    symbol: str
    factor: int


def _as_multiple(number: int, symbols: Mapping[str, int]) -> _Multiple | None:
    """Return the symbol and factor of a number; `None` for a number that is not derived from a stand-in.

    Large numbers without a stand-in are the ends of open slices. There is no upper limit, because multiples (such as
    slots times the positions of a window) may exceed 32 bits.
    """
    if number < min(symbols.values()) or number in _NO_END:
        return None
    for symbol, size in symbols.items():
        if number % size == 0:
            return _Multiple(symbol, number // size)
    sizes = words_of((f"{size} ({symbol})" for symbol, size in symbols.items()), "or")
    raise ExportError(f"the traced graph has the number {number}, which is not a multiple of {sizes}.")


def _symbolic(dimension: int | ir.SymbolicDim, symbols: Mapping[str, int]) -> int | str | None:
    """Convert a dimension of a traced value: a stand-in becomes its symbol, a multiple of one becomes unknown."""
    if not isinstance(dimension, int):
        return dimension.value
    if dimension < min(symbols.values()):
        return dimension
    return next((symbol for symbol, size in symbols.items() if size == dimension), None)


class _Restorer:
    """Replaces constants of one graph by sizes that are read from its inputs, each only once."""

    def __init__(self, graph: ir.Graph, inputs: Sequence[ir.Value], symbols: Mapping[str, int]) -> None:
        self._graph = graph
        self._inputs = inputs
        self._symbols = symbols
        self._begin = graph[0]  # nodes that read sizes are inserted before this one
        self._multiples: dict[_Multiple, ir.Value] = {}

    def restore(self, node: ir.Node, index: int, constant: np.ndarray) -> None:
        """Replace a constant input of a node, if it contains a stand-in."""
        multiples = [_as_multiple(int(number), self._symbols) for number in constant.flat]
        if not any(multiples):
            return
        if node.op_type == "Reshape" and sum(m is not None for m in multiples) == 1:
            node.replace_input_with(
                index, self._constant([-1 if m else int(n) for n, m in zip(constant, multiples, strict=True)])
            )
            return
        if constant.ndim > 1:
            raise ExportError(
                f"the traced graph has a constant of shape {constant.shape} that depends on a dynamic size; expected "
                "at most one dimension."
            )
        pieces = [
            self._size(m) if m else self._constant([int(n)]) for n, m in zip(constant.flat, multiples, strict=True)
        ]
        joined = pieces[0] if len(pieces) == 1 else self._add("Concat", pieces, axis=0)
        node.replace_input_with(index, joined if constant.ndim else self._add("Squeeze", [joined]))

    def _size(self, multiple: _Multiple) -> ir.Value:
        """Return a multiple of a size as a tensor `[1]`, which nodes read from an input."""
        if multiple not in self._multiples:
            value, axis, factor = self._source(multiple.symbol)
            size = self._add("Shape", [value], start=axis, end=axis + 1)
            if multiple.factor != factor:
                size = size if factor == 1 else self._add("Div", [size, self._constant([factor])])
                size = size if multiple.factor == 1 else self._add("Mul", [size, self._constant([multiple.factor])])
            self._multiples[multiple] = size
        return self._multiples[multiple]

    def _source(self, symbol: str) -> tuple[ir.Value, int, int]:
        """Return the first input that has this size, the axis that has it, and the axis's length over the size."""
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
    """Return the values of a constant of 64-bit integers; `None` for any other value."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor.numpy() if tensor is not None and tensor.dtype == ir.DataType.INT64 else None


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]
