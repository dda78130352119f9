"""How many cores a process may use, where its container limits them, and results of threads."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from jukebox_deploy import threads
from jukebox_deploy.threads import map_in_threads

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


def slow_to_begin(number: int) -> int:
    """The first calls take longest."""
    time.sleep(max(0, 5 - number) * 0.01)
    return number


@pytest.mark.parametrize(("ahead", "count"), [(0, 1), (1, 2), (4, 2), (10, 8)])
def test_results_come_in_order(ahead: int, count: int) -> None:
    assert list(map_in_threads(slow_to_begin, range(3, 12), threads=count, ahead=ahead)) == list(range(3, 12))


def test_nothing_to_do_is_nothing() -> None:
    assert list(map_in_threads(slow_to_begin, [], threads=2, ahead=4)) == []


def test_no_more_is_made_ahead_than_asked_for() -> None:
    made: list[int] = []
    with closing(map_in_threads(made.append, range(100), threads=2, ahead=3)) as results:
        for taken in range(1, 6):
            next(results)
            time.sleep(0.02)
            assert sorted(made) == list(range(taken + 3))


def test_an_error_comes_in_place_of_its_result() -> None:
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise KeyError("three")
        return number

    results = map_in_threads(fail_at_three, range(10), threads=2, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert list(results) == []


def test_threads_end_when_nobody_wants_more() -> None:
    before = threading.active_count()
    results = map_in_threads(slow_to_begin, range(1000), threads=4, ahead=8)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_calls_run_at_the_same_time() -> None:
    """Both must be in their call for either to return."""
    barrier = threading.Barrier(2, timeout=5)
    assert len(list(map_in_threads(lambda _: barrier.wait(), range(4), threads=2, ahead=2))) == 4
