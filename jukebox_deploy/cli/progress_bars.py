"""Bars with rate and time left, one for each thing that is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

ShowProgress = Callable[[str, float, float], None]
"""Takes what is being done, how much of it is done, and how much there is."""


@contextmanager
def progress_bars(silent: bool) -> Iterator[ShowProgress]:
    """Draws on standard error, and only on a terminal."""
    if silent or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}
        rates: dict[str, Rate] = {}

        def show(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what], rates[what] = bars.add_task(what, total=total, rate=""), Rate(done)
            bars.update(tasks[what], completed=done, total=total, rate=rates[what].after(done))

        yield show


class Rate:
    """How fast something is done, from the first that is heard of it."""

    def __init__(self, done: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._clock, self._begun = done, clock, clock()

    def after(self, done: float) -> str:
        """For instance `12.5/s`; nothing before there is a rate."""
        elapsed = self._clock() - self._begun
        return f"{(done - self._first) / elapsed:.3g}/s" if elapsed > 0 and done > self._first else ""
