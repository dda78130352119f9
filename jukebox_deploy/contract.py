"""Declarations of graphs: the tensors of each, with their dtypes, dimensions and roles.

Every graph is declared once, as a `GraphSpec`. Dummy inputs, ONNX names, dynamic shapes, TensorRT's optimization
profiles, buffers, feed checks, manifests and the documentation are all derived from these declarations. Nothing here
imports a heavy library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np

from jukebox_deploy.config_json import config_to_dict
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.listing import shape_text, words_of


class Role(StrEnum):
    """How a graph uses a tensor."""

    INPUT = "input"
    OUTPUT = "output"
    STATE = "state"  # goes in as `past_NAME` and comes out as `present_NAME`


class GraphKind(StrEnum):
    """The kinds of graphs that a model is divided into; a level has at most one graph of each kind."""

    VQVAE_ENCODE = "vqvae_encode"
    VQVAE_DECODE = "vqvae_decode"
    CONDITION = "condition"
    LYRICS = "lyrics"
    PREFILL = "prefill"
    STEP = "step"


VQVAE_GRAPHS = (GraphKind.VQVAE_ENCODE, GraphKind.VQVAE_DECODE)
"""The graphs of the VQ-VAE; all others are a prior's."""

SLOT_GRAPHS = (GraphKind.PREFILL, GraphKind.STEP)
"""The graphs that work on a prior's slots; neither is useful without the other."""


def graph_name(kind: GraphKind, level: int) -> str:
    """Return the name of a graph, for instance `step_2`."""
    return f"{kind}_{level}"


class Precision(StrEnum):
    """Element type of the transformer stacks and their caches."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> str:
        """The name of the dtype, as in `TensorSpec.dtype`."""
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[self.value]


class LinearWeights(StrEnum):
    """How graphs store the weights of the transformers' linear layers.

    Quantised weights are dequantised where they are used; all arithmetic stays in the graph's `Precision`.
    """

    AS_PRECISION = "precision"
    INT8 = "int8"  # a scale per output column
    INT4 = "int4"  # a scale per output column and `INT4_GROUP` inputs
    FP8 = "fp8"  # e4m3fn, a scale per output column


INT4_GROUP = 32
"""Number of inputs that share an int4 scale: the largest power of two that divides 480, the released upsamplers' state
width.
"""


ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1}
"""The bytes of one element, for each dtype that a graph may declare."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a declared dtype."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


Dimension = int | str
"""A size: a number, a symbol (`"B"`) or a multiple of a symbol (`"8*T"`)."""


def dimension_symbol(dimension: Dimension) -> tuple[str | None, int]:
    """Split a dimension into its symbol (`None` for a number) and its factor."""
    if isinstance(dimension, int):
        return None, dimension
    factor, star, symbol = dimension.rpartition("*")
    return symbol, int(factor) if star else 1


@dataclass(frozen=True)
class DimensionRange:
    """The sizes that a symbol may have: minimum, optimum and maximum of a TensorRT optimization profile."""

    symbol: str
    minimum: int
    optimum: int
    maximum: int


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a graph."""

    name: str
    dtype: str
    dims: tuple[Dimension, ...]
    role: Role
    in_place: bool = False  # a state that is updated in place: its input and output share one buffer

    @property
    def input_name(self) -> str:
        """Name of the graph input."""
        return f"past_{self.name}" if self.role is Role.STATE else self.name

    @property
    def output_name(self) -> str:
        """Name of the graph output."""
        return f"present_{self.name}" if self.role is Role.STATE else self.name

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape for the given sizes of the symbols. Raises `ConfigError` if one is missing."""
        return tuple(self._size(dimension, sizes) for dimension in self.dims)

    def _size(self, dimension: Dimension, sizes: Mapping[str, int]) -> int:
        symbol, factor = dimension_symbol(dimension)
        if symbol is None:
            return factor
        if symbol not in sizes:
            raise ConfigError(f"{self.name}: no size given for dimension {symbol!r}; given are {sizes_text(sizes)}.")
        return factor * sizes[symbol]

    def bytes(self, sizes: Mapping[str, int]) -> int:
        """Return the number of bytes of the tensor for the given sizes of the symbols."""
        return math.prod(self.shape(sizes)) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class GraphSpec:
    """The declaration of a graph; the order of its tensors is that of the graph's inputs and outputs."""

    kind: GraphKind
    level: int
    tensors: tuple[TensorSpec, ...]
    ranges: tuple[DimensionRange, ...]
    part: int | None = None  # index of the part, if this is a part of a cut graph; see `graph_cutting.cut_graph`

    @property
    def name(self) -> str:
        """Name of the graph and stem of its files, for instance `step_2` or `step_2_part_0`."""
        return graph_name(self.kind, self.level) + ("" if self.part is None else f"_part_{self.part}")

    @property
    def model_level(self) -> int | None:
        """The level of the prior that the graph belongs to; `None` for a graph of the VQ-VAE."""
        return None if self.kind in VQVAE_GRAPHS else self.level

    @property
    def precision(self) -> Precision:
        """The precision of the graph's arithmetic.

        It is that of its caches, lyric keys and values, or rows between parts; fp32 for a graph without any of these.
        """
        dtypes = {tensor.dtype for tensor in self.tensors}
        return next((half for half in (Precision.FP16, Precision.BF16) if half.dtype in dtypes), Precision.FP32)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs and states, in order."""
        return tuple(t for t in self.tensors if t.role is not Role.OUTPUT)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs and states, in order."""
        return tuple(t for t in self.tensors if t.role is not Role.INPUT)

    @property
    def states(self) -> tuple[TensorSpec, ...]:
        """States, in order."""
        return tuple(t for t in self.tensors if t.role is Role.STATE)

    def tensor(self, name: str) -> TensorSpec:
        """Return the tensor of a name (without `past_` or `present_`). Raises `EngineError` if there is none."""
        for spec in self.tensors:
            if spec.name == name:
                return spec
        raise EngineError(f"{self.name} has no tensor {name}; it has {words_of(t.name for t in self.tensors)}.")

    def range(self, symbol: str) -> DimensionRange:
        """Return the range of a symbol. Raises `EngineError` if the graph has no such symbol."""
        for declared in self.ranges:
            if declared.symbol == symbol:
                return declared
        raise EngineError(f"{self.name} has no size {symbol}; it has {words_of(r.symbol for r in self.ranges)}.")

    def with_range(self, changed: DimensionRange) -> GraphSpec:
        """Return this declaration with the range of one symbol replaced."""
        return replace(self, ranges=tuple(changed if r.symbol == changed.symbol else r for r in self.ranges))

    @property
    def fixed_sizes(self) -> dict[str, int]:
        """The sizes of those symbols that have a single possible size."""
        return {r.symbol: r.minimum for r in self.ranges if r.minimum == r.maximum}

    @property
    def record(self) -> GraphRecord:
        """The declaration in the form that manifests use."""
        ranges = {r.symbol: (r.minimum, r.optimum, r.maximum) for r in self.ranges}
        return GraphRecord(self.kind, self.level, self.tensors, ranges, self.part)

    def to_json(self) -> dict[str, Any]:
        """Return the declaration as plain JSON data, in the form that manifests use."""
        return config_to_dict(self.record)


@dataclass(frozen=True)
class GraphRecord:
    """The declaration of a graph in the form that manifests use; `config_json` reads and writes it."""

    kind: GraphKind
    level: int
    tensors: tuple[TensorSpec, ...]
    ranges: Mapping[str, tuple[int, int, int]]  # symbol -> minimum, optimum, maximum
    part: int | None

    @property
    def spec(self) -> GraphSpec:
        """The declaration."""
        ranges = tuple(DimensionRange(symbol, *sizes) for symbol, sizes in self.ranges.items())
        return GraphSpec(self.kind, self.level, self.tensors, ranges, self.part)


_Graph = TypeVar("_Graph")


def find_graph(graphs: Mapping[str, _Graph], kind: GraphKind, level: int, owner: str = "the bundle") -> _Graph:
    """Return the graph of a kind and level from `graphs`, which maps names to graphs.

    Raises `EngineError` if there is none; its message begins with `owner` and lists the graphs that there are.
    """
    name = graph_name(kind, level)
    if name not in graphs:
        raise EngineError(f"{owner} has no graph {name}; it has {words_of(sorted(graphs))}. Export that graph too.")
    return graphs[name]


def graph_levels(graphs: Mapping[str, GraphSpec], kind: GraphKind) -> list[int]:
    """Return the levels that have a graph of a kind, level 0 first."""
    return sorted(spec.level for spec in graphs.values() if spec.kind is kind)


def check_feeds(spec: GraphSpec, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Check names, dtypes and shapes before an engine is called, and return the size of each symbol.

    Raises `EngineError`, which names the tensor, what was found and what was expected.
    """
    expected = {t.input_name: t for t in spec.inputs}
    if missing := [name for name in expected if name not in feeds]:
        raise EngineError(f"{spec.name}: missing inputs {words_of(missing)}; expected are {words_of(expected)}.")
    if extra := [name for name in feeds if name not in expected]:
        raise EngineError(f"{spec.name}: unknown inputs {words_of(extra)}; expected are {words_of(expected)}.")
    sizes: dict[str, int] = {}
    for name, tensor in expected.items():
        _check_feed(spec.name, tensor, feeds[name], sizes)
    for r in spec.ranges:
        if not r.minimum <= sizes.get(r.symbol, r.minimum) <= r.maximum:
            raise EngineError(f"{spec.name}: {r.symbol} is {sizes[r.symbol]}, allowed are {r.minimum} to {r.maximum}.")
    return sizes


def _check_feed(graph: str, tensor: TensorSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
    """Check one array, and add the sizes of the symbols that it determines to `sizes`."""
    label = f"{graph}: input {tensor.input_name!r}"
    if array.dtype != numpy_dtype(tensor.dtype):
        raise EngineError(f"{label} has dtype {array.dtype}, expected {tensor.dtype}.")
    if array.ndim != len(tensor.dims):
        raise EngineError(f"{label} has shape {shape_text(array.shape)}, expected {shape_text(tensor.dims)}.")
    for dimension, size in zip(tensor.dims, array.shape, strict=True):
        symbol, factor = dimension_symbol(dimension)
        if symbol is None:
            fits = size == factor
        else:
            fits = size % factor == 0 and sizes.setdefault(symbol, size // factor) * factor == size
        if not fits:
            expected = shape_text(tensor.dims) + (f" with {sizes_text(sizes)}" if sizes else "")
            raise EngineError(f"{label} has shape {shape_text(array.shape)}, expected {expected}.")


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Write sizes by symbol for messages: `B=3, T=33`."""
    return ", ".join(f"{symbol}={size}" for symbol, size in sizes.items()) or "none"
