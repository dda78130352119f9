"""Two processes learn what one does with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from jukebox_deploy.models.bottleneck import draw_candidates
from jukebox_deploy.training.workers import Workers
from tests.source_tree import REPOSITORY
from tests.training.worker_runs import RUNS, STEPS, prior_run, results

SCRIPT = REPOSITORY / "tests" / "training" / "worker_runs.py"


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workers")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", SCRIPT, folder]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_does_with_the_whole_batch(name, of_two_processes, tmp_path):
    alone = results(RUNS[name], Workers(), tmp_path)
    together = load_file(of_two_processes / f"{name}.safetensors")
    assert alone.keys() == together.keys()
    different = [key for key, tensor in alone.items() if not torch.allclose(together[key], tensor, 1e-3, 1e-5)]
    assert different == []


@pytest.fixture
def group_of_one(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("pieces", [1, 2])
def test_gradients_are_reduced_once_per_batch(group_of_one, pieces):
    trainer = prior_run(Workers(count=2), pieces=pieces)  # of which there is one
    reductions = []

    def count(state, bucket):
        reductions.append(trainer.step)
        future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    assert isinstance(trainer._wrapped, DistributedDataParallel)
    trainer._wrapped.register_comm_hook(None, count)
    list(trainer.steps())
    assert reductions == list(range(STEPS))


@pytest.mark.parametrize("rank", [0, 1])
def test_peers_draw_the_candidates_that_one_process_draws_from_all_rows(rank):
    rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    expected = draw_candidates(rows, 30, torch.Generator().manual_seed(7))
    own, others = rows.split(10)[rank], rows.split(10)[1 - rank]

    class Peer:
        """Knows what the other process will say."""

        count = 2

        def __init__(self):
            self.rank = rank

        def sum(self, mine):
            theirs = torch.zeros_like(mine)
            for row in others:
                theirs += torch.where((expected - row).abs().amax(1, keepdim=True) < 0.1, row, 0)
            return mine + theirs

    assert torch.equal(draw_candidates(own, 30, torch.Generator().manual_seed(7), Peer()), expected)


def test_one_process_needs_no_others():
    workers = Workers()
    tensor = torch.arange(3.0)
    assert workers.first
    assert all(torch.equal(f(tensor), tensor) for f in (workers.sum, workers.mean, workers.broadcast))
    assert workers.any(True, False) == (True, False)
    workers.wait()
