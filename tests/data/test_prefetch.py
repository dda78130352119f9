"""Results of threads: order, how far ahead, errors, and threads that end."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from jukebox_deploy.data.prefetch import prefetched
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.threads import map_in_threads


def slow_to_begin(number: int) -> int:
    """The first calls take longest."""
    time.sleep(max(0, 5 - number) * 0.01)
    return number


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 2), (4, 2), (10, 8)])
def test_results_come_in_order(ahead, threads):
    assert list(prefetched(slow_to_begin, 3, 12, ahead, threads)) == list(range(3, 12))


def test_nothing_to_do_is_nothing():
    assert list(prefetched(slow_to_begin, 5, 5)) == []


def test_no_more_is_made_ahead_than_asked_for():
    made: list[int] = []
    with closing(prefetched(made.append, 0, 100, ahead=3, threads=2)) as results:
        for taken in range(1, 6):
            next(results)
            time.sleep(0.02)
            assert sorted(made) == list(range(taken + 3))


def test_an_error_comes_in_place_of_its_result():
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise KeyError("three")
        return number

    results = prefetched(fail_at_three, 0, 10)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="three"):
        next(results)
    assert list(results) == []


def test_threads_end_when_nobody_wants_more():
    before = threading.active_count()
    results = prefetched(slow_to_begin, 0, 1000, ahead=8, threads=4)
    next(results)
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_calls_run_at_the_same_time():
    """Both must be in their call for either to return."""
    barrier = threading.Barrier(2, timeout=5)
    assert len(list(map_in_threads(lambda _: barrier.wait(), range(4), threads=2, ahead=2))) == 4


@pytest.mark.parametrize("options", [{"threads": 0}, {"ahead": -1}])
def test_no_threads_and_less_than_nothing_ahead_are_refused(options):
    with pytest.raises(ConfigError, match="prefetching: expected"):
        prefetched(slow_to_begin, 0, 1, **options)
