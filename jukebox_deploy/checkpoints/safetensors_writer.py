"""Writing of safetensors files one tensor at a time.

The library's `save_file` needs all tensors in memory at once, which is too much for large checkpoints. The resulting
bytes are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.tensors import TensorInfo, TensorSource
from jukebox_deploy.files import atomic_path

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
}
"""The names of the element types of weights in the format, widest first."""


def write_safetensors(path: Path, source: TensorSource, metadata: Mapping[str, str] | None = None) -> None:
    """Write all tensors of `source` atomically, with one tensor in memory at a time.

    Raises `JukeboxError` if there is no disk space or no permission, and what `source.load` raises.
    """
    infos = source.infos
    # Widest elements first, so that every tensor is aligned without gaps, which the format forbids.
    names = sorted(infos, key=lambda name: (list(DTYPE_NAMES).index(infos[name].dtype), name))
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(_header({name: infos[name] for name in names}, metadata))
        for name in names:
            _write_values(file, source.load(name))


def _header(infos: Mapping[str, TensorInfo], metadata: Mapping[str, str] | None) -> bytes:
    """Return the header: its length (8 bytes, little-endian), and JSON padded to a multiple of 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, info in infos.items():
        table[name] = {
            "dtype": DTYPE_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.bytes],
        }
        offset += info.bytes
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_values(file: BinaryIO, tensor: Tensor) -> None:
    """Append a tensor's bytes, without copying them if they are contiguous."""
    flat = tensor.detach().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)
