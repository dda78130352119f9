"""The two flavours of TensorRT, `tensorrt` and `tensorrt_rtx`, as far as a builder sees them.

They share one Python API; where they differ, the attribute decides, never a version string. Their
callbacks (log, progress, output stream) must not raise: the library swallows exceptions there, even
Ctrl-C and a full disk. So they are kept in `BuildEvents` and raised after the build.
"""

from __future__ import annotations

import functools
import importlib
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.listing import LISTING_BEGINS
from jukebox_deploy.errors import EngineError

Progress = Callable[[str, int, int], None]
"""Told of every finished step of a build: phase, steps done, steps in all."""


def no_progress(phase: str, done: int, steps: int) -> None:
    """Tell nobody."""


_MODULES = {Target.TENSORRT: "tensorrt", Target.TENSORRT_RTX: "tensorrt_rtx"}
_INSTALL = {
    Target.TENSORRT: "pip install --extra-index-url https://pypi.nvidia.com 'jukebox-deploy[tensorrt]'",
    Target.TENSORRT_RTX: "pip install 'jukebox-deploy[tensorrt-rtx]'",
}


def load_flavour(target: Target) -> Any:
    """Import the Python module of a flavour; `EngineError` says how to install it."""
    if target not in _MODULES:
        raise EngineError(f"{target} needs no builder: ONNX Runtime runs exported bundles as they are.")
    try:
        return importlib.import_module(_MODULES[target])
    except (ImportError, OSError) as error:
        raise EngineError(f"{target} is not installed ({error}). Install it: {_INSTALL[target]}") from error


def flavour_version(target: Target) -> str:
    """Version of an installed flavour."""
    return str(load_flavour(target).__version__)


_KEPT = 10_000
"""Messages; a runtime may go on telling for as long as it runs."""


@dataclass
class BuildEvents:
    """What a build or a runtime told through its callbacks, the latest of it."""

    messages: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))  # severity name, text
    written: int = 0  # bytes
    failure: BaseException | None = None  # the first exception in a callback

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an exception instead of passing it to the library, which would swallow it."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Keep Ctrl-C as well: the monitor then ends the build at its next step."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def keep(*_: object) -> None:
            self.failure = self.failure or KeyboardInterrupt()

        previous = signal.signal(signal.SIGINT, keep)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def texts(self, *severities: str) -> list[str]:
        """The messages of these severities, without repetitions."""
        return list(dict.fromkeys(text for severity, text in self.messages if severity in severities))

    def number(self, label: str) -> int | None:
        """The largest number that a message gives after a label, if one does: each profile has its own."""
        pattern = re.compile(re.escape(label) + r"\D*(\d+)")
        found = [match for _, text in self.messages if (match := pattern.search(text))]
        return max((int(match.group(1)) for match in found), default=None)


@functools.cache
def shared_logger(target: Target) -> Any:
    """The one logger of a flavour; its `events` take the messages.

    A process has one: the library ignores a second one while objects of the first live.
    """
    trt = load_flavour(target)

    class CollectingLogger(trt.ILogger):  # type: ignore[misc, name-defined]  # untyped
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.events = BuildEvents()

        def log(self, severity: Any, msg: str) -> None:
            with self.events.guarded():
                if severity.name != "VERBOSE" or msg.startswith(LISTING_BEGINS):
                    self.events.messages.append((severity.name, msg))

    return CollectingLogger()


def stream_writer(target: Target, events: BuildEvents, file: BinaryIO) -> Any:
    """A writer that hands an engine to a file piece by piece, so that it is never whole in memory."""
    trt = load_flavour(target)

    class FileWriter(trt.IStreamWriter):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            with events.guarded():
                file.write(data)
                events.written += len(data)
            return len(data)

    return FileWriter()


def progress_monitor(target: Target, events: BuildEvents, progress: Progress) -> Any:
    """A monitor that reports to a function, and stops the build when a callback has failed."""
    trt = load_flavour(target)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with events.guarded():
                progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return events.failure is None

    return Monitor()
