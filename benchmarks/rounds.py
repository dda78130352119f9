"""Variants take turns: rounds in rotating order, and after them single calls.

All variants run in one process, round by round in turn, so that whatever slows the machine down
slows all of them; ratios are taken within rounds. A round repeats its work until enough is timed.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jukebox_deploy.benchmarks.results import CALLS_FOR_PERCENTILES

ROUNDS_AT_LEAST = 5

ROUND_SECONDS = 0.2
"""What is timed in a round, at least: interruptions by other programs take milliseconds."""

CALLS_AT_LEAST = 64
"""Single calls whose latency is measured."""

_CALL_SECONDS = 2.0  # for calls beyond `CALLS_AT_LEAST`
_PASSES_AT_MOST = 10_000  # in a round

Clock = Callable[[], float]


class Task(Protocol):
    """One workload on one opened variant. A pass is a number of calls, one after the other; a round has passes."""

    @property
    def calls(self) -> int:
        """Calls in a pass."""

    def rewind(self) -> None:
        """Go back to where every pass begins; not timed."""

    def run(self, calls: int) -> None:
        """Make that many calls; everything is done when this returns."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one variant."""

    first: float  # call after opening
    passes: int  # in a round
    calls_per_pass: int
    rounds: tuple[float, ...]  # all passes of each
    calls: tuple[float, ...]  # single ones


@dataclass
class _Turns:
    """One task: how many passes make a round of it, and the seconds of each pass so far."""

    task: Task
    passes: int
    rounds: list[list[float]]


def time_in_turns(
    tasks: Sequence[Task],
    rounds: int,
    listener: Callable[[str], None] = lambda text: None,
    clock: Clock = time.perf_counter,
    between: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """First calls, a warm-up, the rounds, and single calls of every task.

    `listener` hears what comes next; `between` is called after each round.
    """
    listener("first calls and warm-up")
    firsts = [_seconds(task, 1, clock) for task in tasks]
    sides = [_Turns(task, _passes_of_a_round(task, clock), []) for task in tasks]
    for number in range(rounds):
        listener(f"round {number + 1} of {rounds}")
        # Who is first changes, so that nobody always finds another's data in the caches.
        for place in range(len(tasks)):
            side = sides[(number + place) % len(tasks)]
            side.rounds.append(_turn(side.task, side.passes, clock))
        between()
    listener("single calls")
    return [
        Timing(first, side.passes, side.task.calls, tuple(map(sum, side.rounds)), _single_calls(side, clock))
        for first, side in zip(firsts, sides, strict=True)
    ]


def _passes_of_a_round(task: Task, clock: Clock) -> int:
    """How many passes take `ROUND_SECONDS`, by the median of a warm-up as long as that."""
    seconds = [_seconds(task, task.calls, clock)]
    while sum(seconds) < ROUND_SECONDS and len(seconds) < _PASSES_AT_MOST:
        seconds.append(_seconds(task, task.calls, clock))
    median = statistics.median(seconds)
    return max(1, min(_PASSES_AT_MOST, math.ceil(ROUND_SECONDS / median))) if median > 0 else len(seconds)


def _turn(task: Task, passes: int, clock: Clock) -> list[float]:
    """The seconds of the passes of a round, after a call that is not timed.

    A suspicion, not a finding: the first call after other variants' turns may pay for memory that lay idle.
    """
    if task.calls > 1:
        _seconds(task, 1, clock)
    return [_seconds(task, task.calls, clock) for _ in range(passes)]


def _seconds(task: Task, calls: int, clock: Clock) -> float:
    task.rewind()
    return _run(task, calls, clock)


def _run(task: Task, calls: int, clock: Clock) -> float:
    begun = clock()
    task.run(calls)
    return clock() - begun


def _single_calls(side: _Turns, clock: Clock) -> tuple[float, ...]:
    """Passes of one call are single calls already."""
    task = side.task
    if task.calls == 1:
        return tuple(seconds for passes in side.rounds for seconds in passes)
    seconds: list[float] = []
    while _too_few(seconds):
        task.rewind()
        seconds += [_run(task, 1, clock) for _ in range(task.calls)]
    return tuple(seconds)


def _too_few(seconds: Sequence[float]) -> bool:
    """As many calls as percentiles need, where those do not take long."""
    if len(seconds) < CALLS_AT_LEAST:
        return True
    return len(seconds) < CALLS_FOR_PERCENTILES and sum(seconds) < _CALL_SECONDS
