"""Checkpoint files are read without running anything in them, and damage is told, not guessed at."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from jukebox_deploy.checkpoints.reading import SafetensorsFile, read_torch_file, state_tensors
from jukebox_deploy.checkpoints.safetensors_writer import write_safetensors
from jukebox_deploy.checkpoints.tensors import TensorTable
from jukebox_deploy.errors import CheckpointError

STATE = {"a": torch.arange(60, dtype=torch.float32).reshape(6, 10), "b": torch.ones(7, dtype=torch.float16)}


class Payload:
    """Makes an ordinary unpickler create the file `victim`."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return os.system, (f"touch {self.victim}",)


def save(path: Path, data: object, *, legacy: bool) -> Path:
    torch.save(data, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [True, False])
def test_both_formats(tmp_path, legacy):
    path = save(tmp_path / "a.pth.tar", {"model": OrderedDict(STATE), "step": 5, "opt": None}, legacy=legacy)
    data = read_torch_file(path)
    assert data["step"] == 5
    for name, tensor in state_tensors(path, data["model"]).items():
        assert torch.equal(tensor, STATE[name])
        assert tensor.dtype == STATE[name].dtype


def test_shapes_alone(tmp_path):
    path = save(tmp_path / "a.pth.tar", STATE, legacy=True)
    for name, tensor in read_torch_file(path, values=False).items():
        assert (tensor.shape, tensor.dtype) == (STATE[name].shape, STATE[name].dtype)


@pytest.mark.parametrize("legacy", [True, False])
def test_hostile_pickles_are_refused_and_not_run(tmp_path, legacy):
    victim = tmp_path / "victim"
    path = save(tmp_path / "a.pth.tar", {"model": STATE, "extra": Payload(victim)}, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"a\.pth\.tar: refused.*posix"):
        read_torch_file(path)
    assert not victim.exists()


def test_a_bare_hostile_pickle_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "victim"
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps(Payload(victim), protocol=2))
    with pytest.raises(CheckpointError):
        read_torch_file(path)
    assert not victim.exists()


@pytest.mark.parametrize("legacy", [True, False])
def test_the_object_asked_for_is_named(tmp_path, legacy):
    path = save(tmp_path / "a.pth.tar", {"hps": Path("x")}, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"asks to run 'pathlib(\._local)?\.PosixPath'"):
        read_torch_file(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_numpy_numbers_beside_the_weights(tmp_path, legacy):
    numbers = {"f8": np.float64(0.25), "f4": np.float32(-2), "i8": np.int64(-7), "b1": np.bool_(True)}
    path = save(tmp_path / "a.pth.tar", {"model": STATE, "metrics": numbers}, legacy=legacy)
    read = read_torch_file(path)["metrics"]
    assert read == {"f8": 0.25, "f4": -2.0, "i8": -7, "b1": True}
    assert all(type(value).__module__ == "builtins" for value in read.values())


def test_numpy_objects_are_refused(tmp_path):
    path = save(tmp_path / "a.pth.tar", {"x": np.array([None, "a"], dtype=object)}, legacy=True)
    with pytest.raises(CheckpointError):
        read_torch_file(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_files(tmp_path, legacy):
    whole = save(tmp_path / "whole", {"model": STATE, "step": 1}, legacy=legacy).read_bytes()
    path = tmp_path / "cut.pth.tar"
    for length in sorted({*range(0, len(whole), len(whole) // 60), len(whole) - 1}):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pth\.tar"):
            read_torch_file(path)


@pytest.mark.parametrize("legacy", [True, False])
def test_flipped_bits_never_get_out_as_another_error(tmp_path, legacy):
    whole = save(tmp_path / "whole", {"model": STATE, "step": 1}, legacy=legacy).read_bytes()
    path = tmp_path / "flipped.pth.tar"
    refused = 0
    for position in range(0, min(len(whole), 1500), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        try:
            read_torch_file(path)
        except CheckpointError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("content", [b"", b"\x00", b"hello\n" * 100, b"PK\x03\x04" + bytes(200), b"\x80\x02."])
def test_something_else(tmp_path, content):
    path = tmp_path / "song.wav"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"song\.wav"):
        read_torch_file(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_torch_file(tmp_path / "missing.pth.tar")
    with pytest.raises(CheckpointError, match="not a file"):
        read_torch_file(tmp_path)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ([1, 2], "expected a dictionary of tensors, found list"),
        ({}, "expected a dictionary of tensors, found an empty one"),
        ({"a": 1}, "expected a tensor for 'a', found int"),
        ({1: torch.ones(2)}, r"expected names of tensors, found 1 \(int\)"),
        ({"a": torch.ones(2, dtype=torch.int32)}, "expected dense floating point"),
        ({"a": torch.ones(2).to_sparse()}, "expected dense floating point"),
        ({"a": torch.ones(2, device="meta")}, "expected dense floating point"),
    ],
)
def test_states_that_are_none(state, found):
    with pytest.raises(CheckpointError, match=f"here: .*{found}"):
        state_tensors(Path("here"), state)


def test_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    path, theirs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = STATE | {"ü/é": torch.ones(3, 0), "scalar": torch.tensor(2.5), "t": STATE["a"].t()}
    write_safetensors(path, TensorTable(tensors), {"format": "pt"})
    save_file({name: t.contiguous() for name, t in tensors.items()}, theirs, {"format": "pt"})
    assert path.read_bytes() == theirs.read_bytes()
    read = SafetensorsFile(path)
    assert read.infos == TensorTable(tensors).infos
    assert all(torch.equal(read.load(name), tensor) for name, tensor in tensors.items())
    assert set(load_file(path)) == set(tensors)


def test_damaged_safetensors(tmp_path):
    write_safetensors(tmp_path / "whole", TensorTable(STATE))
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
            SafetensorsFile(path)
    for position in range(0, len(whole) - 300, 2):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with contextlib.suppress(CheckpointError):  # and nothing else may come out
            file = SafetensorsFile(path)
            [file.load(name) for name in file.infos]


def test_safetensors_of_whole_numbers_are_no_weights(tmp_path):
    header = json.dumps({"a": {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match="type I32"):
        SafetensorsFile(path)
