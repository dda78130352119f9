"""What tensors a safetensors file holds, read without PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.listing import words_of

_DTYPES = {"F64": ("float64", 8), "F32": ("float32", 4), "BF16": ("bfloat16", 2), "F16": ("float16", 2)}


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor."""

    dtype: str  # such as "float32"
    shape: tuple[int, ...]
    bytes: int


def check_file(path: Path) -> Path:
    """Return the path; raise `CheckpointError` if there is no readable, non-empty file."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file." if not path.exists() else f"{path}: not a file.")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise CheckpointError(f"{path}: the file is empty. Get it again.")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    return path


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Read what tensors a file holds, by name.

    Raises `CheckpointError` for a file that is missing, truncated, damaged or of another kind.
    """
    with explaining_damage(path), safe_open(check_file(path), framework="numpy") as file:
        return headers_of(path, file)


@contextmanager
def explaining_damage(path: Path) -> Iterator[None]:
    """Turn the library's error into a `CheckpointError`, for a file that is truncated, damaged or of another kind."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(
            f"{path}: not a complete safetensors file: it is truncated, damaged or of another kind ({error}). Get or "
            "make it again."
        ) from error


def headers_of(path: Path, file: Any) -> dict[str, TensorHeader]:
    """Return what tensors an opened file holds, by name. Raises `CheckpointError` for types that no model has."""
    return {name: _tensor(path, name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118  # not a mapping


def _tensor(path: Path, name: str, part: Any) -> TensorHeader:
    if (stored := part.get_dtype()) not in _DTYPES:
        raise CheckpointError(f"{path}: {name} has elements of type {stored}, expected one of {words_of(_DTYPES)}.")
    dtype, width = _DTYPES[stored]
    shape = tuple(part.get_shape())
    return TensorHeader(dtype, shape, math.prod(shape) * width)
