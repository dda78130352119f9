from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from jukebox_deploy.training.whole_tensors import gather


@pytest.fixture
def sharded(tmp_path: Path) -> Iterator[dict[str, Tensor]]:
    """Three sharded tensors, of a single process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    yield {name: distribute_tensor(torch.full((4,), float(ord(name))), mesh, [Shard(0)]) for name in "abc"}
    distributed.destroy_process_group()


@pytest.mark.parametrize("keep", [True, False])
def test_one_tensor_is_whole_at_a_time(keep: bool, sharded: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device there may be no room for several."""
    made: list[weakref.ref[Tensor]] = []

    def full_tensor(tensor: DTensor) -> Tensor:
        assert not any(one() is not None for one in made)
        whole = tensor.to_local().clone()
        made.append(weakref.ref(whole))
        return whole

    monkeypatch.setattr(DTensor, "full_tensor", full_tensor)
    gathered = gather(sharded, keep=keep)
    assert len(made) == 3
    expected = {name: torch.full((4,), float(ord(name))) for name in "abc"} if keep else {}
    assert gathered.keys() == expected.keys()
    assert all(torch.equal(gathered[name], tensor) for name, tensor in expected.items())


def test_copies_do_not_follow_the_tensors() -> None:
    tensor = torch.zeros(2)
    copy = gather({"a": tensor})["a"]
    tensor += 1
    assert copy.tolist() == [0, 0]
