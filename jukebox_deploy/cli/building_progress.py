"""Exports and builds as progress, with the time that they have taken so far."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jukebox_deploy.cli.progress import Progress, ProgressDisplay

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.bundle import BuildProgress
    from jukebox_deploy.jobs.export_progress import ExportProgress


_PREPARATION = "preparation"  # the bar of reading and exporting


class BuildingProgress:
    """Shows what is exported and built; `tick` shows it again with the time that has passed."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display
        self._lock = threading.Lock()
        self._last: Progress | None = None

    def export(self, progress: ExportProgress) -> None:
        """Show how many graphs are exported, and what is done with which."""
        done, of, what = progress.done, progress.graphs, progress.activity
        self._show(Progress("exporting", done, of, "graphs exported", note=what, bar=_PREPARATION, timed=True))

    def prepare(self, what: str) -> None:
        """Show what is done before the first engine is built."""
        self._show(Progress(what, bar=_PREPARATION, timed=True))

    def build(self, progress: BuildProgress) -> None:
        """Show which engines are built, and what the builder does."""
        self._display.remove(_PREPARATION)
        phase = f"{progress.phase} {progress.done:.0%}" if progress.phase else ""
        note = ", ".join(filter(None, (progress.engine, phase)))
        self._show(Progress("building", progress.built, progress.engines, "engines built", note=note, timed=True))

    def tick(self) -> None:
        """Show the time of an unfinished activity."""
        with self._lock:
            if self._last is not None and not self._last.finished:
                self._display.show(self._last)

    def _show(self, progress: Progress) -> None:
        with self._lock:
            self._last = progress
            self._display.show(progress)


@contextmanager
def building_progress(display: ProgressDisplay, seconds: float = 1.0) -> Iterator[BuildingProgress]:
    """Show a build on a display, and its time every few seconds: a phase of the builder may report nothing for long."""
    shown, over = BuildingProgress(display), threading.Event()

    def tick() -> None:
        while not over.wait(seconds):
            shown.tick()

    shown.prepare("preparing")
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        over.set()
        thread.join()
