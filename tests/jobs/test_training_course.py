"""The course of a run: interrupted anywhere, it goes on to the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jukebox_deploy.jobs import train_job
from jukebox_deploy.jobs.train_job import train
from jukebox_deploy.training.objective import VQVAEObjective
from jukebox_deploy.training.optimiser import JukeboxAdam
from jukebox_deploy.training.settings import Part
from jukebox_deploy.training.weight_average import WeightAverage
from tests.jobs.small_part import STEPS, SmallPart, request
from tests.source_tree import REPOSITORY


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part is the small one."""
    monkeypatch.setattr(train_job, "_PARTS", dict.fromkeys(Part, SmallPart))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_job, "_PARTS", dict.fromkeys(Part, SmallPart))
        train(request(folder, report_steps=4))
    return folder


def calling(function: Callable[..., Any], at: int, act: Callable[[], None]) -> Callable[..., Any]:
    """The function, with something that happens in the middle of its call of that number."""
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*arguments, **named)
        if calls == at:
            act()
        return result

    return call


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("*"))


def assert_same_run(run: Path, other: Path) -> None:
    """Tensors bit for bit, and the logs but for their times."""
    last = f"checkpoints/{STEPS:08}"
    for path in (other / last).glob("*.safetensors"):
        mine, theirs = load_file(run / last / path.name), load_file(path)
        assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == [], path.name
    assert (run / "held_out.csv").read_text() == (other / "held_out.csv").read_text()
    losses = [[row.split(",")[:2] for row in (r / "log.csv").read_text().splitlines()] for r in (run, other)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("part", "method", "at"),
    [
        (VQVAEObjective, "forward", 4 + 4 + 2),  # four pieces to begin with, and four of each step
        (VQVAEObjective, "next_state", 2),
        (JukeboxAdam, "step", 2),
        (WeightAverage, "update", 2),
    ],
)
def test_a_run_that_is_interrupted_in_a_step_ends_that_step_first(
    part: type, method: str, at: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = request(tmp_path / "cut", report_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(part, method, calling(getattr(part, method), at, interrupt))
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert checkpoints(cut.out) == ["00000002"]
    train(replace(cut, resume=True))
    assert_same_run(cut.out, whole)


def test_a_second_signal_ends_a_run_in_the_middle_of_a_step_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        interrupt()
        interrupt()

    monkeypatch.setattr(VQVAEObjective, "forward", calling(VQVAEObjective.forward, 10, twice))
    with pytest.raises(KeyboardInterrupt):
        train(request(tmp_path / "cut"))
    assert checkpoints(tmp_path / "cut") == []


@pytest.mark.parametrize("method", ["assess", "show"])
def test_a_run_that_is_interrupted_while_it_looks_at_songs_goes_on(
    method: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = request(tmp_path / "cut", report_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(SmallPart, method, calling(getattr(SmallPart, method), 1, interrupt))
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert checkpoints(cut.out) == ["00000004"]
    train(replace(cut, resume=True))
    assert_same_run(cut.out, whole)


def test_a_finished_run_that_is_resumed_stays_as_it_is(whole: Path) -> None:
    before = (whole / "held_out.csv").read_text()
    assert [row.split(",")[0] for row in before.splitlines()] == ["step", "4", str(STEPS)]
    train(replace(request(whole, report_steps=4), resume=True))
    assert (whole / "held_out.csv").read_text() == before


def test_the_time_of_an_assessment_is_in_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(train_job, "time", SimpleNamespace(monotonic=lambda: clock.now))
    pace = train_job._Pace(step=0)
    clock.now, pace.waited = 10.0, 3.0
    pace.restart(step=5)  # after an assessment
    clock.now, pace.waited = 12.0, 4.0
    assert pace.measure(step=7) == (1.0, 0.5)
    clock.now, pace.waited = 16.0, 5.0
    assert pace.measure(step=8) == (0.25, 0.25)


def test_several_processes_stop_after_the_same_step_and_wait_for_the_first(tmp_path: Path) -> None:
    script = REPOSITORY / "tests" / "jobs" / "small_part.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command += [str(script), str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("interrupted_*")) == ["interrupted_0", "interrupted_1"]
    assert checkpoints(tmp_path / "cut") == ["00000004", "00000006"]
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
