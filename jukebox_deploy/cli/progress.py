"""Progress display: bars with rate and time left on a terminal, otherwise an occasional line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""

_DRAWN_PER_SECOND = 4  # seldom, so as not to disturb benchmarks

ShowCount = Callable[[str, float, float], None]
"""Called with the name of an activity, the amount done and the total."""


def per_second(rate: float) -> str:
    """Format a rate, for instance `12.5/s`."""
    return f"{rate:.3g}/s" if rate < 1000 else f"{rate:,.0f}/s"


@dataclass(frozen=True)
class Progress:
    """The progress of one activity."""

    what: str
    done: float = 0.0
    total: float | None = None  # `None`: unknown, so no time left is shown
    unit: str = ""  # what is counted
    found: float | None = None  # done before this run; default: `done` of the first report
    note: str = ""
    speed: Callable[[float], str] = per_second  # formats units per second
    bar: str = ""  # activities with the same name here share a bar; default: `what`
    timed: bool = False  # show the count and the time so far instead of a rate and the time left

    @property
    def finished(self) -> bool:
        """Whether everything is done."""
        return self.total is not None and self.done >= self.total

    @property
    def counted(self) -> str:
        """The count as text, for instance `100 of 600 codes`; empty without a unit or total."""
        return "" if self.total is None else f"{self.done:.0f} of {self.total:.0f} {self.unit}".rstrip()


@dataclass
class Pace:
    """The average speed of an activity since its first report."""

    begun: float  # seconds on the clock
    first: float  # amount done at that time

    def describe(self, progress: Progress, now: float) -> tuple[str, ...]:
        """Return rate and time left, or elapsed time at the end; nothing before there is a rate.

        For a timed activity, return the elapsed time only.
        """
        before = self.first if progress.found is None else progress.found
        elapsed = now - self.begun
        if progress.timed:
            return (f"in {clock_time(elapsed)}" if progress.finished else f"{clock_time(elapsed)} so far",)
        if progress.total is None or elapsed <= 0 or progress.done <= before:
            return ()
        rate = (progress.done - before) / elapsed
        left = (progress.total - progress.done) / rate
        duration = f"in {clock_time(elapsed)}" if progress.finished else f"{clock_time(left)} left"
        return progress.speed(rate), duration


class ProgressDisplay:
    """A display of all activities: `with ProgressDisplay() as display: display.show(Progress("songs", 1, 4))`."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to `console`; default: standard error, so that standard output is only for results."""
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._clock = clock
        self._bars = _bars(self._console) if self._console.is_interactive else None
        self._tasks: dict[str, TaskID] = {}
        self._paces: dict[str, Pace] = {}
        self._shown: dict[str, Progress] = {}
        self._last_line = clock()

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing; bars without a total are removed."""
        if self._bars:
            for bar in [bar for bar in self._tasks if self._shown[bar].total is None]:
                self.remove(bar)
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Update a bar; without a terminal, write a line if one is due."""
        bar, now = progress.bar or progress.what, self._clock()
        last = self._shown.get(bar)
        if last is None or progress.done < last.done:  # it starts, or starts again with something else
            self._paces[bar] = Pace(now, progress.done)
        self._shown[bar] = progress
        if self._bars:
            counted = progress.counted if progress.timed else ""
            self._draw(self._bars, bar, progress, self._text(bar, progress, now, counted))
        elif self._is_due(progress, last, now):
            self._last_line = now
            self.say(self._text(bar, progress, now, progress.counted))

    def remove(self, bar: str) -> None:
        """Remove a bar, if it is there."""
        if self._bars and bar in self._tasks:
            self._bars.remove_task(self._tasks.pop(bar))

    def say(self, text: str) -> None:
        """Write a line, above the bars if there are any."""
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def _is_due(self, progress: Progress, last: Progress | None, now: float) -> bool:
        """Whether to write a line: every few seconds, at the end, and when a bar with a total changes its activity."""
        other = last is not None and last.what != progress.what and progress.total is not None
        return other or progress.finished or now - self._last_line >= LINE_SECONDS

    def _text(self, bar: str, progress: Progress, now: float, counted: str) -> str:
        pace = self._paces[bar].describe(progress, now)
        # In a narrow terminal the end is cut off: the time of a timed activity is what shows that it goes on.
        parts = (counted, *pace, progress.note) if progress.timed else (counted, progress.note, *pace)
        return ": ".join(filter(None, (progress.what, ", ".join(filter(None, parts)))))

    def _draw(self, bars: Bars, bar: str, progress: Progress, text: str) -> None:
        if bar not in self._tasks:
            self._tasks[bar] = bars.add_task(text, total=progress.total, completed=int(progress.done))
        bars.update(self._tasks[bar], description=text, completed=progress.done, total=progress.total)


@contextmanager
def progress_bars() -> Iterator[ShowCount]:
    """Show bars for jobs that report an activity, the amount done and the total."""
    with ProgressDisplay() as display:
        yield lambda what, done, total: display.show(Progress(what, done, total))


@contextmanager
def progress_line(first: str) -> Iterator[Callable[[str], None]]:
    """Show the current activity, at first `first`, for jobs that report nothing else."""
    with ProgressDisplay() as display:

        def say(text: str) -> None:
            display.show(Progress(text, bar="now"))

        say(first)
        yield say


def clock_time(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds, for instance `0:01:10`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _bars(console: Console) -> Bars:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(bar_width=20), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
    # Print other output above the bars; but leave standard output alone if it goes to a pipe or a file.
    redirect = sys.stdout.isatty()
    return Bars(*columns, console=console, refresh_per_second=_DRAWN_PER_SECOND, redirect_stdout=redirect)
