"""One weight file per model, shared by all its graphs, written tensor by tensor.

Graphs are traced without weights; their initialisers then point into this file. So no more than one
tensor is in memory at a time, and the step and the prefill store what they share once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import QuantisedWeight, WeightFormat
from jukebox_deploy.files import atomic_path

ALIGNMENT = 4096
"""Offsets are multiples of a memory page, so that runtimes can map the tensors as they are."""

TensorLoader = Callable[[], Tensor]
"""Reads one tensor of a checkpoint."""


SCALES = "_scale"
"""Ends the name of a quantised weight's scales."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a weight file."""

    offset: int
    length: int  # bytes
    dtype: str  # as ONNX spells it, in lower case
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightFile:
    """A weight file and what is in it, by the parameter's name."""

    path: Path
    tensors: Mapping[str, StoredTensor]

    def external_tensor(self, name: str) -> ir.ExternalTensor:
        """A reference to a tensor, for a graph saved in the same folder; `ExportError` if it is not there."""
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
        """Names of the weights that are small values with scales."""
        return [name for name in self.tensors if name + SCALES in self.tensors]

    def load_quantised(self, name: str) -> QuantisedWeight:
        """One quantised weight, read from the file."""
        values = self.external_tensor(name).numpy()
        if self.tensors[name].dtype in ("int8", "int4"):
            tensor = torch.from_numpy(values.astype(np.int8))
        else:  # a type that NumPy does not know by itself
            tensor = torch.from_numpy(values.view(np.uint8).copy()).view(torch.float8_e4m3fn)
        scales = torch.from_numpy(self.external_tensor(name + SCALES).numpy().view(np.uint8).copy())
        dtype = getattr(torch, self.tensors[name + SCALES].dtype)
        return QuantisedWeight(tensor, scales.view(dtype).reshape(-1, values.shape[1]))


def weights_of_graphs(graphs: Iterable[Path]) -> WeightFile:
    """The weight file that saved graphs of one model share, as far as they use it.

    Raises `ExportError` if there is none, or more than one.
    """
    import onnx

    tensors: dict[str, StoredTensor] = {}
    files: set[Path] = set()
    for graph in graphs:
        for initializer in onnx.load(graph, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in initializer.external_data}
            if not place:
                continue
            files.add(graph.parent / place["location"])
            dtype = ir.DataType(initializer.data_type).name.lower()
            offset, length = int(place["offset"]), int(place["length"])
            tensors[initializer.name] = StoredTensor(offset, length, dtype, tuple(initializer.dims))
    if len(files) != 1:
        raise ExportError(f"the graphs of a model share one weight file, found {sorted(f.name for f in files)}.")
    return WeightFile(files.pop(), tensors)


@dataclass(frozen=True)
class RawTensor:
    """A tensor about to be written."""

    name: str
    dtype: str  # as in `StoredTensor`
    shape: tuple[int, ...]
    data: np.ndarray  # bytes


def plain_tensors(dtypes: Mapping[str, torch.dtype], loaders: Mapping[str, TensorLoader]) -> Iterator[RawTensor]:
    """Parameters, each loaded and converted to its dtype when its turn comes.

    Raises `ExportError` if a parameter has no loader.
    """
    if missing := sorted(set(dtypes) - set(loaders)):
        raise ExportError(f"the checkpoint lacks {missing[:20]} ({len(missing)} in all).")
    for name, dtype in dtypes.items():
        yield _raw_tensor(name, loaders[name]().to(dtype))


def quantised_tensors(name: str, weight: QuantisedWeight, form: WeightFormat) -> Iterator[RawTensor]:
    """The values and the scales of a weight; one scale per column is `[out]`, more are `[groups, out]`."""
    values = weight.values.reshape(-1).view(torch.uint8).numpy()
    packed = values if form.bits == 8 else _pack_nibbles(values)
    yield RawTensor(name, form.dtype, tuple(weight.values.shape), packed)
    yield _raw_tensor(name + SCALES, weight.scales[0] if form.group is None else weight.scales)


def _pack_nibbles(integers: np.ndarray) -> np.ndarray:
    """Two 4-bit integers per byte, the first in the lower half, as ONNX has them."""
    nibbles = integers & 0x0F
    packed: np.ndarray = nibbles[0::2] | (nibbles[1::2] << 4)
    return packed


def write_weights(path: Path, tensors: Iterable[RawTensor]) -> WeightFile:
    """Write tensors one after the other, each at the start of a page.

    The file appears whole or not at all.
    """
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
