from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.training.checkpoint import Snapshot, latest_step, read_snapshot, write_snapshot


def snapshot(step: int) -> Snapshot:
    weights = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor(step)}
    return Snapshot(step, {"loss_scale": {"value": 2.0}}, {"weights": weights, "state": {}})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_snapshot(tmp_path, snapshot(7), keep=2)
    found = read_snapshot(tmp_path, 7)
    assert (found.step, found.numbers) == (7, {"loss_scale": {"value": 2.0}})
    assert found.tensors["state"] == {}
    assert all(torch.equal(found.tensors["weights"][n], t) for n, t in snapshot(7).tensors["weights"].items())


def test_only_the_last_ones_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9):
        write_snapshot(tmp_path, snapshot(step), keep=2)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [9, 10]
    assert latest_step(tmp_path) == 10


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert latest_step(tmp_path) is None


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snapshot(tmp_path, snapshot(1), keep=1)

    def full(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(Exception, match="disk is full"):
        write_snapshot(tmp_path, snapshot(2), keep=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000001"]


@pytest.mark.parametrize("damage", ["cut", "gone", "no json", "other version"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, damage: str) -> None:
    folder = write_snapshot(tmp_path, snapshot(3), keep=1)
    weights, numbers = folder / "weights.safetensors", folder / "training.json"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-5])
        case "gone":
            weights.unlink()
        case "no json":
            numbers.write_text("{")
        case "other version":
            numbers.write_text(numbers.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(CheckpointError, match=r"Remove .*00000003 to resume from the checkpoint before it"):
        read_snapshot(tmp_path, 3)
