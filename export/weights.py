"""One weight file per model, shared by all its graphs, written tensor by tensor.

Graphs are traced without weights; their initialisers then point into this file. So no more than one
tensor is in memory at a time, and the step and the prefill store what they share once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from jukebox_deploy.errors import ExportError
from jukebox_deploy.files import atomic_path

ALIGNMENT = 4096
"""Offsets are multiples of a memory page, so that runtimes can map the tensors as they are."""

TensorLoader = Callable[[], Tensor]
"""Reads one tensor of a checkpoint."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a weight file."""

    offset: int
    length: int  # bytes
    dtype: str
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
            ir.DataType[_ONNX_TYPES[stored.dtype]],
            shape=ir.Shape(stored.shape),
            name=name,
            base_dir=str(self.path.parent),
        )


_ONNX_TYPES = {"float32": "FLOAT", "float16": "FLOAT16", "bfloat16": "BFLOAT16"}


def write_weights(path: Path, dtypes: Mapping[str, torch.dtype], loaders: Mapping[str, TensorLoader]) -> WeightFile:
    """Write the parameters named in `dtypes`, each converted to its dtype, one after the other.

    The file appears whole or not at all. Raises `ExportError` if a parameter has no loader.
    """
    if missing := sorted(set(dtypes) - set(loaders)):
        raise ExportError(f"{path.name}: the checkpoint lacks {missing[:20]} ({len(missing)} in all).")
    stored: dict[str, StoredTensor] = {}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for name, dtype in dtypes.items():
            tensor = loaders[name]().to(dtype).contiguous()
            file.seek(-file.tell() % ALIGNMENT, 1)
            offset = file.tell()
            file.write(_raw_bytes(tensor).data)
            stored[name] = StoredTensor(
                offset, file.tell() - offset, str(dtype).removeprefix("torch."), tuple(tensor.shape)
            )
    return WeightFile(path, stored)


def _raw_bytes(tensor: Tensor) -> np.ndarray:
    raw: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw
