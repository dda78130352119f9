"""Reading of checkpoint files without ever running code from them.

The files of torch are pickles, which are read only by torch's restricted unpickler. Files are memory-mapped if their
format allows it (safetensors, zip), and otherwise read as a whole.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from jukebox_deploy.checkpoints.safetensors_header import check_file, explaining_damage, headers_of
from jukebox_deploy.checkpoints.safetensors_writer import DTYPE_NAMES
from jukebox_deploy.checkpoints.tensors import TensorInfo
from jukebox_deploy.errors import CheckpointError

_ZIP_MAGIC = b"PK\x03\x04"
_NUMPY_CODES = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}
_GLOBAL = re.compile(r"GLOBAL (\S+) was not an allowed|whose module (\S+) is blocked")


class _NumpyDtype:
    """Replacement of `numpy.dtype` in a pickle, so that no NumPy code is called."""

    def __init__(self, code: str = "", *_: object) -> None:
        self.code = code

    def __setstate__(self, _: object) -> None:
        """Ignore the state: it has the byte order, which is little-endian in all checkpoints."""


def _numpy_scalar(dtype: _NumpyDtype, data: bytes) -> float | int | bool:
    """Replace NumPy's constructor of scalars in a pickle; return a plain number."""
    (number,) = struct.unpack("<" + _NUMPY_CODES[dtype.code], data)
    return number


# Metrics and settings that are stored with the weights may be NumPy scalars (specification 15.1).
_ALLOWED_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_NumpyDtype, "numpy.dtype"),
    (_numpy_scalar, "numpy.core.multiarray.scalar"),
    (_numpy_scalar, "numpy._core.multiarray.scalar"),
]


def read_torch_file(path: Path, *, values: bool = True) -> Any:
    """Read the object in a `.pth.tar`, `.pt` or `.bin` file of torch, in the zip or the older format.

    Zip files are memory-mapped. With `values=False`, the tensors of older files have shapes and dtypes but no values,
    which takes no memory. Raises `CheckpointError` for files that are missing, truncated, damaged, of another kind, or
    that contain more than the restricted unpickler allows.
    """
    path = check_file(path)
    with path.open("rb") as file:
        is_zip = file.read(4) == _ZIP_MAGIC
    # The values of a zip file are mapped, which costs nothing until they are accessed.
    skipping = nullcontext() if values or is_zip else torch.serialization.skip_data()
    try:
        with torch.serialization.safe_globals(_ALLOWED_GLOBALS), skipping:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error))) from error
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        reason = str(error).split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: not a complete checkpoint of torch: it is truncated, damaged or of another kind ({reason}). "
            "Get the file again and compare its size."
        ) from error


def _refusal(path: Path, message: str) -> str:
    if found := _GLOBAL.search(message):
        return (
            f"{path}: refused, because this file asks to run {found[1] or found[2]!r} while it is read. "
            "A checkpoint needs only tensors, numbers, strings, lists and dictionaries. "
            "If you trust the file, load it with torch and save it again with only these."
        )
    return (
        f"{path}: refused by the restricted unpickler: the file is damaged, or contains more than tensors and plain "
        f"values ({message.split(chr(10))[-1][:200]}). Get the file again."
    )


def state_tensors(path: Path, state: Any) -> dict[str, Tensor]:
    """Check that `state` is a dictionary of names and plain floating-point tensors, and return it.

    Raises a `CheckpointError` that names `path` and what was found instead.
    """
    if not isinstance(state, Mapping) or not state:
        found = "an empty one" if isinstance(state, Mapping) else type(state).__name__
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {found}. Not the weights of a model.")
    for name, tensor in state.items():
        if not isinstance(name, str):
            kind = type(name).__name__
            raise CheckpointError(
                f"{path}: expected names of tensors, found {name!r} ({kind}). Not the weights of a model."
            )
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{path}: expected a tensor for {name!r}, found {type(tensor).__name__}. Not the weights of a model."
            )
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPE_NAMES:
            raise CheckpointError(
                f"{path}: {name} is a tensor of {tensor.dtype}, {tensor.layout}; expected dense floating point."
            )
    return dict(state)


class SafetensorsFile:
    """The tensors of a safetensors file, memory-mapped or read into memory one at a time."""

    def __init__(self, path: Path, *, mapped: bool = True) -> None:
        """Open a file; raise `CheckpointError` if it is missing, truncated, damaged or of another kind."""
        self.path = check_file(path)
        with explaining_damage(self.path):
            self._file = safe_open(self.path, framework="pt", backend="mmap" if mapped else "pread")
            headers = headers_of(self.path, self._file)
        self._infos = {name: TensorInfo(header.shape, getattr(torch, header.dtype)) for name, header in headers.items()}

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by name."""
        return self._infos

    def load(self, name: str) -> Tensor:
        """Load one tensor; if the file is mapped, its memory is the file."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor
