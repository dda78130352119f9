"""Timing of several tasks in turn: rounds in rotating order, then single calls.

All tasks run in one process and take turns round by round, so a disturbance of the machine slows all of them, and
ratios within a round stay valid. A round repeats its work until enough time has passed to be measured reliably.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jukebox_deploy.benchmarks.results import CALLS_FOR_PERCENTILES

MIN_ROUNDS = 5
"""Smallest number of rounds that a plan may ask for."""

ROUND_SECONDS = 0.2
"""Minimum duration of a round, long against interruptions by other programs, which take milliseconds."""

MIN_CALLS = 64
"""Minimum number of single calls that are timed for the latency, if a pass has more than one call."""

_CALL_SECONDS = 2.0  # after which no single calls beyond `MIN_CALLS` are timed
_MAX_PASSES = 10_000  # per round

Clock = Callable[[], float]
"""Returns the time in seconds."""


class Task(Protocol):
    """A workload on an opened variant.

    A pass is a fixed number of consecutive calls. A round consists of one or more passes.
    """

    @property
    def calls(self) -> int:
        """The number of calls per pass."""

    def rewind(self) -> None:
        """Return to the state in which every pass begins; not timed."""

    def run(self, calls: int) -> None:
        """Make that many calls; on return, all their work is done, on a GPU too."""


@dataclass(frozen=True)
class Timing:
    """The timings of one task, in seconds."""

    first: float  # the first call after opening
    passes: int  # number of passes per round
    calls_per_pass: int
    rounds: tuple[float, ...]  # all passes of a round together, one value per round
    calls: tuple[float, ...]  # single calls


@dataclass
class _TimedTask:
    """A task, its number of passes per round, and the seconds of each pass, round by round."""

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
    """Time the first call, then after a warm-up the rounds, then single calls of every task.

    `listener` is told what comes next; `between` is called after each round.
    """
    listener("first calls and warm-up")
    firsts = [_time_from_start(task, 1, clock) for task in tasks]
    timed = [_TimedTask(task, _passes_per_round(task, clock), []) for task in tasks]
    for number in range(rounds):
        listener(f"round {number + 1} of {rounds}")
        # The order rotates, so that no task always finds the data of the same other task in the processor's caches.
        for place in range(len(timed)):
            current = timed[(number + place) % len(timed)]
            current.rounds.append(_time_round(current.task, current.passes, clock))
        between()
    listener("single calls")
    return [
        Timing(first, one.passes, one.task.calls, tuple(map(sum, one.rounds)), _time_single_calls(one, clock))
        for first, one in zip(firsts, timed, strict=True)
    ]


def _passes_per_round(task: Task, clock: Clock) -> int:
    """Return how many passes take `ROUND_SECONDS`, from the median of a warm-up that takes about as long."""
    seconds = [_time_from_start(task, task.calls, clock)]
    while sum(seconds) < ROUND_SECONDS and len(seconds) < _MAX_PASSES:
        seconds.append(_time_from_start(task, task.calls, clock))
    median = statistics.median(seconds)
    return max(1, min(_MAX_PASSES, math.ceil(ROUND_SECONDS / median))) if median > 0 else len(seconds)


def _time_round(task: Task, passes: int, clock: Clock) -> list[float]:
    """Return the seconds of each pass of a round."""
    # A call that is not timed comes first: after the turns of other tasks it may be slower, because its memory may have
    # left the caches (suspected, not shown). If a pass is one call, that call is long and is not repeated.
    if task.calls > 1:
        _time_from_start(task, 1, clock)
    return [_time_from_start(task, task.calls, clock) for _ in range(passes)]


def _time_from_start(task: Task, calls: int, clock: Clock) -> float:
    """Rewind the task, then return the seconds that this many calls take."""
    task.rewind()
    return _time_calls(task, calls, clock)


def _time_calls(task: Task, calls: int, clock: Clock) -> float:
    begun = clock()
    task.run(calls)
    return clock() - begun


def _time_single_calls(timed: _TimedTask, clock: Clock) -> tuple[float, ...]:
    """Return the seconds of single calls; if a pass is one call, those of the rounds."""
    task = timed.task
    if task.calls == 1:
        return tuple(seconds for passes in timed.rounds for seconds in passes)
    seconds: list[float] = []
    while _needs_more_calls(seconds):
        task.rewind()
        seconds += [_time_calls(task, 1, clock) for _ in range(task.calls)]
    return tuple(seconds)


def _needs_more_calls(seconds: Sequence[float]) -> bool:
    """Return whether to time further calls: enough for the 99th percentile, unless that would take too long."""
    if len(seconds) < MIN_CALLS:
        return True
    return len(seconds) < CALLS_FOR_PERCENTILES and sum(seconds) < _CALL_SECONDS
