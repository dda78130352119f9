"""A small model to train without songs: `torchrun small_part.py FOLDER` trains it with several processes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.jobs import train_job
from jukebox_deploy.jobs.training.request import TrainingListener, TrainRequest
from jukebox_deploy.training.checkpoint import Snapshot
from jukebox_deploy.training.objective import PriorObjective
from jukebox_deploy.training.run_folder import RunFolder, RunRecord
from jukebox_deploy.training.settings import Cadence, Part, Sharding
from jukebox_deploy.training.trainer import TrainedWeights, Trainer
from jukebox_deploy.training.workers import Workers
from tests.training.small_runs import VQVAE, settings, vqvae_trainer
from tests.training.worker_runs import prior_run

STEPS = 6
_TIMEOUT = 8  # seconds, of collectives


def request(out: Path, report_steps: int = 0, **changes: object) -> TrainRequest:
    """A run of six steps, each in four pieces."""
    run = settings(Part.VQVAE, steps=STEPS, **{"accumulate": 4, **changes})
    return TrainRequest(run, Path("songs"), out, cadence=Cadence(log_steps=1, report_steps=report_steps))


class SmallPart:
    """A `TrainingPart`: a VQ-VAE, or a prior if it is sharded. Its metric is a sum of its weights."""

    examples, example_length = "samples", 1
    warnings = ()

    def __init__(self, asked: TrainRequest, workers: Workers, listen: TrainingListener) -> None:
        self._settings, self._workers = asked.settings, workers
        self.record = RunRecord(asked.settings, JukeboxConfig("small", VQVAE), 1, "digest")

    def trainer(self) -> Trainer:
        """See `TrainingPart`."""
        if self._settings.sharding is Sharding.SHARDED:
            torch.manual_seed(0)
            return prior_run(self._workers, sharded=True)
        return vqvae_trainer(steps=self._settings.steps, accumulate=self._settings.accumulate)

    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """See `TrainingPart`."""
        return {"sum": sum(float(tensor.sum()) for tensor in trained.weights.values())}

    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """See `TrainingPart`."""
        (folder / "shown").touch()

    def write_bundle(self, trained: TrainedWeights, out: Path) -> Any:
        """See `TrainingPart`."""
        out.mkdir(exist_ok=True)


def train_together(folder: Path, workers: Workers) -> None:
    """Train with other processes: to the end, and to a signal that only the second process gets, and on from there.

    Meanwhile, a checkpoint and sounds take longer than a process waits in a collective.
    """
    sharded = partial(request, report_steps=4, accumulate=1, sharding=Sharding.SHARDED)
    forward, save, calls = PriorObjective.forward, RunFolder.save, 0

    def interrupted(self: PriorObjective, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 and workers.rank == 1:
            signal.raise_signal(signal.SIGINT)
        return forward(self, *arguments)

    def save_slowly(self: RunFolder, snapshot: Snapshot, keep: int) -> None:
        time.sleep(1.2 * _TIMEOUT if snapshot.step == 4 else 0)
        save(self, snapshot, keep)

    def show_slowly(self: SmallPart, trained: TrainedWeights, report: Path) -> None:
        time.sleep(1.2 * _TIMEOUT if int(report.name) == STEPS else 0)

    train_job.train(sharded(folder / "whole"))
    with patch.object(PriorObjective, "forward", interrupted):
        try:
            train_job.train(sharded(folder / "cut"))
        except KeyboardInterrupt:
            (folder / f"interrupted_{workers.rank}").touch()
    with patch.object(RunFolder, "save", save_slowly), patch.object(SmallPart, "show", show_slowly):
        train_job.train(replace(sharded(folder / "cut"), resume=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    begin = partial(distributed.init_process_group, timeout=timedelta(seconds=_TIMEOUT))
    with (
        patch.object(distributed, "init_process_group", begin),
        patch.object(train_job, "_PARTS", dict.fromkeys(Part, SmallPart)),
        Workers.current() as together,
        patch.object(Workers, "current", lambda: nullcontext(together)),
    ):
        train_together(Path(sys.argv[1]), together)
