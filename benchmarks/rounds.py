"""Variants take turns: rounds in rotating order, and single calls in a pass of their own.

All variants run in one process, round by round in turn, so that whatever slows the machine down
slows all of them; ratios are taken within rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

ROUNDS_AT_LEAST = 5
CALLS_AT_LEAST = 64
"""Single calls whose latency is measured."""

Clock = Callable[[], float]


class Task(Protocol):
    """One workload on one opened variant. A round is a number of calls, one after the other."""

    @property
    def calls(self) -> int:
        """Calls in a round."""

    def rewind(self) -> None:
        """Go back to where every round begins; not timed."""

    def run(self, calls: int) -> None:
        """Make that many calls; everything is done when this returns."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one variant."""

    first: float  # call after opening
    rounds: tuple[float, ...]
    calls: tuple[float, ...]  # single ones


def time_in_turns(
    tasks: Sequence[Task],
    rounds: int,
    listener: Callable[[str], None] = lambda text: None,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """First calls, a warm-up, the rounds, and single calls of every task; `listener` hears what comes next."""
    listener("first calls and warm-up")
    firsts = [_seconds(task, 1, clock) for task in tasks]
    for task in tasks:
        _seconds(task, task.calls, clock)
    found: list[list[float]] = [[] for _ in tasks]
    for number in range(rounds):
        listener(f"round {number + 1} of {rounds}")
        # Who is first changes, so that nobody always finds another's data in the caches.
        for place in range(len(tasks)):
            index = (number + place) % len(tasks)
            found[index].append(_turn(tasks[index], clock))
    listener("single calls")
    singles = [_single_calls(task, mine, clock) for task, mine in zip(tasks, found, strict=True)]
    return [Timing(first, tuple(mine), calls) for first, mine, calls in zip(firsts, found, singles, strict=True)]


def _turn(task: Task, clock: Clock) -> float:
    """The seconds of a round, after a call that is not timed.

    A suspicion, not a finding: the first call after other variants' turns may pay for memory that lay idle.
    """
    if task.calls > 1:
        _seconds(task, 1, clock)
    return _seconds(task, task.calls, clock)


def _seconds(task: Task, calls: int, clock: Clock) -> float:
    task.rewind()
    return _run(task, calls, clock)


def _run(task: Task, calls: int, clock: Clock) -> float:
    begun = clock()
    task.run(calls)
    return clock() - begun


def _single_calls(task: Task, rounds: list[float], clock: Clock) -> tuple[float, ...]:
    """Rounds of one call are single calls already."""
    if task.calls == 1:
        return tuple(rounds)
    seconds: list[float] = []
    while len(seconds) < CALLS_AT_LEAST:
        task.rewind()
        seconds += [_run(task, 1, clock) for _ in range(task.calls)]
    return tuple(seconds)
