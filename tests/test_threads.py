"""How many cores a process may use, where its container limits them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jukebox_deploy import threads

CORES = 8


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a control group, on a machine with eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    monkeypatch.setattr(threads, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "cpu").mkdir()
    return tmp_path


def test_without_a_limit_all_cores_that_the_process_may_run_on(group: Path) -> None:
    assert threads.usable_cores() == CORES


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", CORES),
        ("max 100000", CORES),
        ("", CORES),
        ("200000 0", CORES),
    ],
)
def test_the_limit_of_a_container(group: Path, limit: str, cores: int) -> None:
    (group / "cpu.max").write_text(f"{limit}\n")
    assert threads.usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(300_000, 3), (250_001, 3), (-1, CORES)])
def test_the_limit_of_an_older_system(group: Path, quota: int, cores: int) -> None:
    (group / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert threads.usable_cores() == cores
