"""Where a training run is, for people: a bar with loss, rate and time left, or a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from jukebox_deploy.jobs.train_request import TrainingEvent

_LINE_SECONDS = 10.0  # between two plain lines
_SHOWN = ("loss", "bits", "samples_per_second", "codes_per_second")


class TrainingProgress:
    """Give it every event: `with TrainingProgress(console) as progress: progress.show(event)`."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._console = console
        self._clock = clock
        self._last_line = -_LINE_SECONDS
        self._action = ""
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
            self._bars = Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=120)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        if self._bars:
            self._bars.stop()

    def show(self, event: TrainingEvent) -> None:
        """Show one event."""
        note = ", ".join(
            f"{name.replace('_', ' ')} {event.numbers[name]:.4g}" for name in _SHOWN if name in event.numbers
        )
        if self._bars:
            self._draw(self._bars, event, note)
            return
        due = self._clock() - self._last_line >= _LINE_SECONDS
        if due or event.action != self._action or event.step == event.steps:
            self._last_line, self._action = self._clock(), event.action
            self._console.print(
                f"{event.action}: {event.step} of {event.steps}" + (f", {note}" if note else ""),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _draw(self, bars: Progress, event: TrainingEvent, note: str) -> None:
        """A bar for what has steps of its own; saving and looking go on within that of training."""
        name = event.action if event.action == "encoding songs" else "training"
        if name not in self._tasks:
            self._tasks[name] = bars.add_task(name, total=event.steps, note="")
        bars.update(self._tasks[name], completed=event.step, total=event.steps, note=note or event.action)
