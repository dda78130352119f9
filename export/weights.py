"""The weight file of a model, which all its graphs share, written tensor by tensor.

Graphs are traced without weights, and their initialisers then refer to this file. So only one tensor is in memory at a
time, and weights that step and prefill share are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import QuantisedWeight, WeightFormat
from jukebox_deploy.files import atomic_path
from jukebox_deploy.listing import listed, words_of

if TYPE_CHECKING:
    import onnx

ALIGNMENT = 4096
"""Alignment of tensors in bytes: a memory page, so that runtimes can memory-map them."""

TensorLoader = Callable[[], Tensor]
"""Reads one tensor of a checkpoint."""


SCALES = "_scale"
"""Suffix of the name of a quantised weight's scales."""


@dataclass(frozen=True)
class StoredTensor:
    """The location of a tensor in a weight file."""

    offset: int
    length: int  # bytes
    dtype: str  # ONNX's name of the element type, in lower case
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightFile:
    """A weight file, with its tensors by the names of the parameters."""

    path: Path
    tensors: Mapping[str, StoredTensor]

    def external_tensor(self, name: str) -> ir.ExternalTensor:
        """Return a reference to a tensor, for a graph in the same folder. Raises `ExportError` if the file lacks it."""
        if name not in self.tensors:
            raise ExportError(f"the graph needs the parameter {name!r}, which {self.path.name} does not hold.")
        stored = self.tensors[name]
        return ir.ExternalTensor(
            self.path.name,
            stored.offset,
            stored.length,
            ir.DataType[stored.dtype.upper()],
            shape=ir.Shape(stored.shape),
            name=name,
            base_dir=str(self.path.parent),
        )

    @property
    def quantised(self) -> list[str]:
        """Names of the quantised weights, which are those that have scales."""
        return [name for name in self.tensors if name + SCALES in self.tensors]

    def load_quantised(self, name: str) -> QuantisedWeight:
        """Read one quantised weight from the file."""
        values = self.external_tensor(name).numpy()
        if self.tensors[name].dtype in ("int8", "int4"):
            tensor = torch.from_numpy(values.astype(np.int8))
        else:  # fp8, which NumPy and PyTorch can only exchange as bytes
            tensor = torch.from_numpy(values.view(np.uint8).copy()).view(torch.float8_e4m3fn)
        scales = torch.from_numpy(self.external_tensor(name + SCALES).numpy().view(np.uint8).copy())
        dtype = getattr(torch, self.tensors[name + SCALES].dtype)
        return QuantisedWeight(tensor, scales.view(dtype).reshape(-1, values.shape[1]))


def weights_of_graphs(graphs: Iterable[Path]) -> WeightFile:
    """Return the weight file that saved graphs of one model share, with the tensors that they use.

    Raises `ExportError` for a graph that cannot be read, and unless they use exactly one file.
    """
    tensors: dict[str, StoredTensor] = {}
    files: set[Path] = set()
    for graph in graphs:
        for initializer in _initializers(graph):
            place = {entry.key: entry.value for entry in initializer.external_data}
            if not place:
                continue
            files.add(graph.parent / place["location"])
            dtype = ir.DataType(initializer.data_type).name.lower()
            offset, length = int(place["offset"]), int(place["length"])
            tensors[initializer.name] = StoredTensor(offset, length, dtype, tuple(initializer.dims))
    if len(files) != 1:
        raise ExportError(f"the graphs of a model share one weight file, found {_file_names(files)}.")
    return WeightFile(files.pop(), tensors)


def _initializers(graph: Path) -> Iterable[onnx.TensorProto]:
    """Read the initialisers of a graph, without their values."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        return onnx.load(graph, load_external_data=False).graph.initializer
    except (OSError, DecodeError) as error:
        raise ExportError(
            f"{graph} cannot be read as an ONNX graph ({error}). Copy the folder again, or export it again."
        ) from error


@dataclass(frozen=True)
class RawTensor:
    """A tensor that is to be written."""

    name: str
    dtype: str  # see `StoredTensor`
    shape: tuple[int, ...]
    data: np.ndarray  # the bytes, as uint8


def _file_names(files: Iterable[Path]) -> str:
    return words_of(sorted(file.name for file in files)) or "none"


def plain_tensors(dtypes: Mapping[str, torch.dtype], loaders: Mapping[str, TensorLoader]) -> Iterator[RawTensor]:
    """Yield parameters in their dtypes; each is loaded when the iterator reaches it.

    Raises `ExportError` if a parameter has no loader.
    """
    if missing := sorted(set(dtypes) - set(loaders)):
        raise ExportError(f"the checkpoint lacks {listed(missing, 20)}. Import it again.")
    for name, dtype in dtypes.items():
        yield _raw_tensor(name, loaders[name]().to(dtype))


def quantised_tensors(name: str, weight: QuantisedWeight, form: WeightFormat) -> Iterator[RawTensor]:
    """Yield the values and the scales of a quantised weight; scales are `[out]`, or `[groups, out]` with groups."""
    values = weight.values.reshape(-1).view(torch.uint8).numpy()
    packed = values if form.bits == 8 else _pack_nibbles(values)
    yield RawTensor(name, form.dtype, tuple(weight.values.shape), packed)
    yield _raw_tensor(name + SCALES, weight.scales[0] if form.group is None else weight.scales)


def _pack_nibbles(integers: np.ndarray) -> np.ndarray:
    """Pack two 4-bit integers per byte, the first in the lower half, as ONNX requires."""
    nibbles = integers & 0x0F
    packed: np.ndarray = nibbles[0::2] | (nibbles[1::2] << 4)
    return packed


def write_weights(path: Path, tensors: Iterable[RawTensor]) -> WeightFile:
    """Write tensors one after the other, each at the start of a memory page. The file is written atomically."""
    stored: dict[str, StoredTensor] = {}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for tensor in tensors:
            file.seek(-file.tell() % ALIGNMENT, 1)
            offset = file.tell()
            file.write(tensor.data.data)
            stored[tensor.name] = StoredTensor(offset, file.tell() - offset, tensor.dtype, tensor.shape)
    return WeightFile(path, stored)


def _raw_tensor(name: str, tensor: Tensor) -> RawTensor:
    dtype = str(tensor.dtype).removeprefix("torch.").replace("float32", "float")
    raw: np.ndarray = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return RawTensor(name, dtype, tuple(tensor.shape), raw)
