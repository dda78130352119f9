from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import MissingPackageError, TrainingError
from jukebox_deploy.jobs.train_job import train
from jukebox_deploy.jobs.training.request import TrainRequest
from jukebox_deploy.optional_packages import packages_explained
from jukebox_deploy.training.checkpoint import Snapshot
from jukebox_deploy.training.run_folder import RunFolder, RunRecord
from jukebox_deploy.training.settings import Cadence, OptimiserSettings, Part
from tests.training.small_runs import PRIOR, VQVAE, settings

RECORD = RunRecord(settings(Part.VQVAE), JukeboxConfig("small", VQVAE), songs=3, data="d", vocabulary="v")


def test_a_run_that_was_begun_goes_on_only_if_asked(tmp_path: Path) -> None:
    RunFolder.begin(tmp_path / "run", RECORD, resume=False)
    with pytest.raises(TrainingError, match="continue it with --resume"):
        RunFolder.begin(tmp_path / "run", RECORD, resume=False)
    assert RunFolder.begin(tmp_path / "run", RECORD, resume=True).latest() is None


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="has other things in it"):
        RunFolder.begin(tmp_path, RECORD, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(RECORD, config=JukeboxConfig("other", VQVAE)), r"the model is not the same \(other, and was small\)"),
        (replace(RECORD, config=JukeboxConfig("small", VQVAE, (PRIOR,))), "the model is not the same"),
        (replace(RECORD, fine_tuned=True), "it began with fresh weights and not with the bundle's weights"),
        (replace(RECORD, data="e", songs=4), r"songs are not the same \(4 of them, and there were 3\)"),
        (replace(RECORD, source="bundle"), "the bundle that training began from"),
        (replace(RECORD, vocabulary="w"), "the lists of artists and genres are not the same"),
        (replace(RECORD, settings=settings(Part.VQVAE, batch=8)), "batch is 8, and was 4"),
        (
            replace(RECORD, settings=settings(Part.VQVAE, frozen=("labels", "core"))),
            "frozen is labels and core, and was not given",
        ),
        (replace(RECORD, settings=settings(Part.VQVAE, seed=1)), "seed is 1, and was 0"),
    ],
)
def test_another_run_does_not_go_on_there(tmp_path: Path, other: RunRecord, reason: str) -> None:
    RunFolder.begin(tmp_path, RECORD, resume=False)
    with pytest.raises(TrainingError, match=reason):
        RunFolder.begin(tmp_path, other, resume=True)


def test_a_run_that_did_not_record_its_lists_goes_on(tmp_path: Path) -> None:
    RunFolder.begin(tmp_path, replace(RECORD, vocabulary=None), resume=False)
    RunFolder.begin(tmp_path, RECORD, resume=True)
    with pytest.raises(TrainingError, match="the lists of artists and genres are not the same"):
        RunFolder.begin(tmp_path, replace(RECORD, vocabulary="w"), resume=True)


def run_of(steps: int, anneal: int) -> RunRecord:
    return replace(RECORD, settings=settings(Part.VQVAE, steps=steps, optimiser=OptimiserSettings(anneal=anneal)))


@pytest.mark.parametrize(
    ("before", "done", "longer"),
    [
        (run_of(6, 0), 6, run_of(60, 0)),
        (run_of(6, 2), 0, run_of(60, 2)),
        (run_of(6, 2), 4, run_of(60, 30)),
        (run_of(6, 0), 6, run_of(60, 54)),
        (run_of(60, 30), 4, run_of(6, 2)),  # shorter
        (run_of(6, 2), 6, run_of(6, 2)),
    ],
)
def test_a_run_may_become_longer_while_its_rate_is_full(
    tmp_path: Path, before: RunRecord, done: int, longer: RunRecord
) -> None:
    begin_and_stop(tmp_path, before, done)
    RunFolder.begin(tmp_path, longer, resume=True)
    again = RunFolder.begin(tmp_path, longer, resume=True)
    assert json.loads((again.path / "run.json").read_text())["settings"]["steps"] == longer.settings.steps


@pytest.mark.parametrize(
    ("before", "done", "longer", "reason"),
    [
        (run_of(6, 2), 5, run_of(60, 2), "steps is 60, and was 6"),
        (run_of(60, 2), 5, run_of(60, 56), "anneal is 56, and was 2"),
        (run_of(6, 0), 6, run_of(60, 56), "steps is 60, and was 6"),
        (run_of(6, 0), 5, run_of(4, 0), "5 steps are already done, but only 4 are requested"),
    ],
)
def test_steps_whose_rate_was_another_are_not_taken_over(
    tmp_path: Path, before: RunRecord, done: int, longer: RunRecord, reason: str
) -> None:
    begin_and_stop(tmp_path, before, done)
    with pytest.raises(TrainingError, match=reason):
        RunFolder.begin(tmp_path, longer, resume=True)


def begin_and_stop(path: Path, record: RunRecord, done: int) -> None:
    folder = RunFolder.begin(path, record, resume=False)
    if done:
        folder.save(Snapshot(done, {}, {"weights": {"a": torch.zeros(1)}}), keep=1)


def test_rows_logged_after_the_last_checkpoint_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, RECORD, resume=False)
    log, _ = folder.open_logs(0, tensorboard=False)
    for step in (1, 2, 3):
        log.append(step, {"loss": step / 3, "skipped": 0})
    folder.save(Snapshot(2, {}, {"weights": {"a": torch.zeros(1)}}), keep=1)
    latest = RunFolder.begin(tmp_path, RECORD, resume=True).latest()
    assert latest is not None
    folder.open_logs(latest.step, tensorboard=False)
    assert (tmp_path / "log.csv").read_text() == "step,loss,skipped\n1,0.333333,0\n2,0.666667,0\n"


def test_logs_that_a_killed_run_left_empty_get_their_columns(tmp_path: Path) -> None:
    folder = RunFolder.begin(tmp_path, RECORD, resume=False)
    (tmp_path / "log.csv").touch()
    log, held_out = folder.open_logs(0, tensorboard=False)
    log.append(1, {"loss": 0.5})
    held_out.append(1, {"bits": 2.0})
    log.append(2, {"loss": 0.25})
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n2,0.25\n"
    assert (tmp_path / "held_out.csv").read_text() == "step,bits\n1,2\n"


def test_curves_for_tensorboard_go_on_where_the_table_does(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = RunFolder.begin(tmp_path, RECORD, resume=False)
    for begin, losses in ((0, {1: 3.0, 2: 2.0, 3: 9.0}), (2, {3: 1.0})):  # the first was killed after step 2 was saved
        log, held_out = folder.open_logs(begin, tensorboard=True)
        for step, loss in losses.items():
            log.append(step, {"loss": loss})
        held_out.append(max(losses), {"bits": 5.0})
        log.close()
        held_out.close()
    assert curves(tmp_path) == {"log/loss": [(1, 3.0), (2, 2.0), (3, 1.0)], "held_out/bits": [(3, 5.0)]}


def test_without_tensorboard_a_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    request = TrainRequest(RECORD.settings, tmp_path / "songs", tmp_path / "run", cadence=Cadence(tensorboard=True))
    with pytest.raises(MissingPackageError, match=r"pip install '\.\[train\]'"), packages_explained():
        train(request)
    assert not (tmp_path / "run").exists()


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_run_that_goes_on_puts_right_what_was_left_half_done(tmp_path: Path) -> None:
    RunFolder.begin(tmp_path, RECORD, resume=False)
    (tmp_path / ".replaced-bundle").mkdir()
    half = tmp_path / "checkpoints" / ".partial-1-00000002"
    half.mkdir(parents=True)
    os.utime(half, (0, 0))
    assert RunFolder.begin(tmp_path, RECORD, resume=True).bundle.is_dir()
    assert not half.exists()


def test_a_record_that_is_damaged_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match=r"run\.json: not the record of a training run"):
        RunFolder.begin(tmp_path, RECORD, resume=True)
