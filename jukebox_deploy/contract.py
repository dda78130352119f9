"""The language in which every graph is declared once: tensors, dtypes, dimensions, roles.

Dummy inputs, ONNX names, dynamic shapes, TensorRT profiles, buffers, feed checks, manifests and the
documentation are all derived from these tables. Nothing here imports a heavy library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from jukebox_deploy.errors import ConfigError, EngineError


class Role(StrEnum):
    """What a tensor is to its graph."""

    INPUT = "input"
    OUTPUT = "output"
    STATE = "state"  # goes in as `past_NAME` and comes out as `present_NAME`


class GraphKind(StrEnum):
    """The graphs that a model is cut into, per level."""

    VQVAE_ENCODE = "vqvae_encode"
    VQVAE_DECODE = "vqvae_decode"
    CONDITION = "condition"
    LYRICS = "lyrics"
    PREFILL = "prefill"
    STEP = "step"


class Precision(StrEnum):
    """Element type of the transformer stacks and their caches."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> str:
        """The dtype's name as tensors spell it."""
        return {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[self.value]


class LinearWeights(StrEnum):
    """How graphs store the weights of the transformers' linear layers.

    Smaller ones are multiplied back where they are used; all arithmetic stays in the `Precision`.
    """

    AS_PRECISION = "precision"
    INT8 = "int8"  # a scale per output column
    INT4 = "int4"  # a scale per output column and `INT4_GROUP` inputs
    FP8 = "fp8"  # e4m3fn, a scale per output column


INT4_GROUP = 32
"""Inputs that share a scale in int4: no larger power of two divides the state width 480 of the released upsamplers."""


ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "bool": 1}
"""The dtypes that a graph may declare, and the bytes of one element."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a declared dtype."""
    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


Dimension = int | str
"""A size: a number, a symbol (`"B"`) or a multiple of one (`"8*T"`)."""


def dimension_symbol(dimension: Dimension) -> tuple[str | None, int]:
    """Split a dimension into its symbol (`None` for a number) and its factor."""
    if isinstance(dimension, int):
        return None, dimension
    factor, star, symbol = dimension.rpartition("*")
    return symbol, int(factor) if star else 1


@dataclass(frozen=True)
class DimensionRange:
    """What a symbol may be: TensorRT's minimum, optimum and maximum."""

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
    in_place: bool = False  # a state whose update is written into the buffer it came from

    @property
    def input_name(self) -> str:
        """Name on the way into the graph."""
        return f"past_{self.name}" if self.role is Role.STATE else self.name

    @property
    def output_name(self) -> str:
        """Name on the way out of the graph."""
        return f"present_{self.name}" if self.role is Role.STATE else self.name

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape where the symbols have the given sizes; `ConfigError` if one is missing."""
        return tuple(self._size(dimension, sizes) for dimension in self.dims)

    def _size(self, dimension: Dimension, sizes: Mapping[str, int]) -> int:
        symbol, factor = dimension_symbol(dimension)
        if symbol is None:
            return factor
        if symbol not in sizes:
            raise ConfigError(f"{self.name}: no size given for dimension {symbol!r}; given are {dict(sizes)}.")
        return factor * sizes[symbol]

    def bytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes of the tensor at the given sizes."""
        return math.prod(self.shape(sizes)) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class GraphSpec:
    """One graph: its tensors in the order in which they go in and come out."""

    kind: GraphKind
    level: int
    tensors: tuple[TensorSpec, ...]
    ranges: tuple[DimensionRange, ...]
    part: int | None = None  # which part of a graph that was cut, see `graphs.cut_graph`

    @property
    def name(self) -> str:
        """Name of the graph and stem of its files, for instance `step_2` or `step_2_part_0`."""
        return f"{self.kind}_{self.level}" + ("" if self.part is None else f"_part_{self.part}")

    @property
    def model_level(self) -> int | None:
        """The level of the prior that the graph belongs to; `None` for the VQ-VAE's."""
        return None if self.kind in (GraphKind.VQVAE_ENCODE, GraphKind.VQVAE_DECODE) else self.level

    @property
    def precision(self) -> Precision:
        """What the graph computes in, as its caches, lyrics or rows say; fp32 where it has none of these."""
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
        """The tensor of that name (without `past_` or `present_`); `EngineError` if there is none."""
        for spec in self.tensors:
            if spec.name == name:
                return spec
        raise EngineError(f"{self.name} has no tensor {name!r}; it has {[t.name for t in self.tensors]}.")

    def to_json(self) -> dict[str, Any]:
        """The table as plain data, for manifests."""
        return {
            "kind": str(self.kind),
            "level": self.level,
            "tensors": [
                {"name": t.name, "dtype": t.dtype, "dims": list(t.dims), "role": str(t.role), "in_place": t.in_place}
                for t in self.tensors
            ],
            "ranges": {r.symbol: [r.minimum, r.optimum, r.maximum] for r in self.ranges},
            "part": self.part,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> GraphSpec:
        """Read a table back; `EngineError` if it is not one."""
        try:
            tensors = tuple(
                TensorSpec(t["name"], t["dtype"], tuple(t["dims"]), Role(t["role"]), bool(t["in_place"]))
                for t in data["tensors"]
            )
            ranges = tuple(DimensionRange(symbol, *sizes) for symbol, sizes in data["ranges"].items())
            part = data["part"]
            spec = GraphSpec(GraphKind(data["kind"]), int(data["level"]), tensors, ranges, part)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EngineError(f"the manifest's table of a graph is not readable: {error!r}. Export again.") from error
        if unknown := {t.dtype for t in tensors} - set(ITEM_BYTES):
            raise EngineError(f"{spec.name}: unknown dtypes {sorted(unknown)} in the manifest. Export again.")
        return spec


def check_feeds(spec: GraphSpec, feeds: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Check names, dtypes and shapes before an engine is called; returns the size of each symbol.

    Raises `EngineError` that names the tensor, what was found and what was expected.
    """
    expected = {t.input_name: t for t in spec.inputs}
    if missing := [name for name in expected if name not in feeds]:
        raise EngineError(f"{spec.name}: inputs {missing} are missing; expected are {list(expected)}.")
    if extra := [name for name in feeds if name not in expected]:
        raise EngineError(f"{spec.name}: unknown inputs {extra}; expected are {list(expected)}.")
    sizes: dict[str, int] = {}
    for name, tensor in expected.items():
        _check_feed(spec.name, tensor, feeds[name], sizes)
    for r in spec.ranges:
        if not r.minimum <= sizes.get(r.symbol, r.minimum) <= r.maximum:
            raise EngineError(f"{spec.name}: {r.symbol} is {sizes[r.symbol]}, allowed are {r.minimum} to {r.maximum}.")
    return sizes


def _check_feed(graph: str, tensor: TensorSpec, array: np.ndarray, sizes: dict[str, int]) -> None:
    """Check one array and note the sizes of the symbols it fixes."""
    label = f"{graph}: input {tensor.input_name!r}"
    if array.dtype != numpy_dtype(tensor.dtype):
        raise EngineError(f"{label} has dtype {array.dtype}, expected {tensor.dtype}.")
    if array.ndim != len(tensor.dims):
        raise EngineError(f"{label} has shape {array.shape}, expected {list(tensor.dims)}.")
    for dimension, size in zip(tensor.dims, array.shape, strict=True):
        symbol, factor = dimension_symbol(dimension)
        if symbol is None:
            fits = size == factor
        else:
            fits = size % factor == 0 and sizes.setdefault(symbol, size // factor) * factor == size
        if not fits:
            raise EngineError(f"{label} has shape {array.shape}, expected {list(tensor.dims)} with {sizes}.")
