"""What is read of safetensors files without PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from jukebox_deploy.checkpoints.safetensors_header import TensorHeader, read_header
from jukebox_deploy.errors import CheckpointError


def test_every_tensor_is_described(tmp_path: Path) -> None:
    tensors = {
        "matrix": torch.ones(3, 5),
        "scalar": torch.ones((), dtype=torch.float64),
        "half": torch.ones(2, dtype=torch.float16),
        "brain": torch.ones(2, 0, 1, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"by": "a test"})
    assert read_header(tmp_path / "x.safetensors") == {
        "matrix": TensorHeader("float32", (3, 5), 60),
        "scalar": TensorHeader("float64", (), 8),
        "half": TensorHeader("float16", (2,), 4),
        "brain": TensorHeader("bfloat16", (2, 0, 1), 0),
    }


@pytest.mark.parametrize("kept", [5, 60, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"matrix": torch.ones(3, 5)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"x\.safetensors: not a complete safetensors file"):
        read_header(path)


def test_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"counts": torch.ones(2, dtype=torch.int64)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="counts has elements of type I64, expected"):
        read_header(tmp_path / "x.safetensors")
