"""Builds on a display: which engine of how many, what the builder does, and the time, also while it says nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from jukebox_deploy.cli import progress as progress_module
from jukebox_deploy.cli.building_progress import BuildingProgress, building_progress
from jukebox_deploy.cli.main import cli
from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.engines.tensorrt.bundle import BuildProgress
from jukebox_deploy.jobs.export_progress import ExportProgress
from tests.benchmarks.still_clock import StillClock
from tests.engines.handmade_graphs import save_bundle


@contextmanager
def watched(terminal: bool = False) -> Iterator[tuple[BuildingProgress, StillClock, io.StringIO]]:
    """A build, its clock, and what is written."""
    clock, stream = StillClock(), io.StringIO()
    with ProgressDisplay(Console(file=stream, force_terminal=terminal, width=120), clock) as display:
        yield BuildingProgress(display), clock, stream


def test_a_line_says_which_engine_the_phase_and_the_time() -> None:
    with watched() as (shown, clock, stream):
        shown.build(BuildProgress(2, 8))
        clock.now = 190.0
        shown.build(BuildProgress(2, 8, "step_2_part_1", "Computing profile costs", 0.6))
        clock.now = 200.0
        shown.tick()
        clock.now = 250.0
        shown.build(BuildProgress(8, 8))
        shown.tick()
    assert stream.getvalue().splitlines() == [
        "building: 2 of 8 engines built, 0:03:10 so far, step_2_part_1, Computing profile costs 60%",
        "building: 2 of 8 engines built, 0:03:20 so far, step_2_part_1, Computing profile costs 60%",
        "building: 8 of 8 engines built, in 0:04:10",
    ]


def test_an_export_is_told_with_its_own_time() -> None:
    with watched() as (shown, clock, stream):
        shown.prepare("preparing")
        clock.now = 1.0
        shown.export(ExportProgress(0, 2, "tracing step_2, prefill_2"))
        clock.now = 11.0
        shown.tick()
        clock.now = 14.0
        shown.export(ExportProgress(1, 2, "comparing prefill_2 with PyTorch"))
        clock.now = 15.0
        shown.export(ExportProgress(2, 2))
        shown.build(BuildProgress(0, 1))
        clock.now = 30.0
        shown.build(BuildProgress(1, 1))
    assert stream.getvalue().splitlines() == [
        "exporting: 0 of 2 graphs exported, 0:00:01 so far, tracing step_2, prefill_2",
        "exporting: 0 of 2 graphs exported, 0:00:11 so far, tracing step_2, prefill_2",
        "exporting: 2 of 2 graphs exported, in 0:00:15",
        "building: 1 of 1 engines built, in 0:00:15",
    ]


def test_a_terminal_keeps_the_bar_of_the_engines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with watched(terminal=True) as (shown, _, stream):
        shown.prepare("preparing")
        shown.build(BuildProgress(1, 4, "step_0"))
    before, _, last = stream.getvalue().rpartition("building: 1 of 4 engines built, 0:00:00 so far, step_0")
    assert "25%" in before.splitlines()[-1]
    assert "preparing" not in before.splitlines()[-1] + last


def test_time_passes_while_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0.0)
    stream = io.StringIO()
    with ProgressDisplay(Console(file=stream, width=120)) as display, building_progress(display, 0.01) as shown:
        shown.build(BuildProgress(0, 1, "step_0"))
        deadline = time.monotonic() + 10
        while stream.getvalue().count("step_0") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert stream.getvalue().count("building: 0 of 1 engines built, 0:00:0") >= 3


def test_a_build_tells_its_engines(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    source = save_bundle(tmp_path / "onnx").folder
    result = CliRunner().invoke(cli, ["build", str(source), "--out", str(tmp_path / "engines")])
    assert result.exit_code == 0, result.output
    assert "building: 2 of 2 engines built, in 0:00:" in result.stderr
