"""The two flavours of TensorRT, `tensorrt` and `tensorrt_rtx`: import, logger and build callbacks.

They share one Python API; where they differ, the code looks for the attribute, and never compares versions. The library
swallows exceptions in its callbacks (log, progress, output stream), even for Ctrl-C and a full disk. Therefore
`BuildEvents` stores them, and they are raised after the build.
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
from types import FrameType
from typing import Any, BinaryIO

from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.listing import LISTING_BEGINS
from jukebox_deploy.errors import EngineError

Progress = Callable[[str, int, int], None]
"""Called when a phase of a build begins, and after each of its steps: phase, steps done, steps in total."""


def no_progress(phase: str, done: int, steps: int) -> None:
    """Ignore the progress."""


_MODULES = {Target.TENSORRT: "tensorrt", Target.TENSORRT_RTX: "tensorrt_rtx"}
_INSTALL = {
    Target.TENSORRT: "pip install --extra-index-url https://pypi.nvidia.com tensorrt cuda-bindings",
    Target.TENSORRT_RTX: "pip install tensorrt-rtx cuda-bindings",
}


def load_flavour(target: Target) -> Any:
    """Import the Python module of a flavour. Raises `EngineError`, which says how to install it."""
    if target not in _MODULES:
        raise EngineError(f"{target} needs no builder: ONNX Runtime runs exported bundles as they are.")
    try:
        return importlib.import_module(_MODULES[target])
    except (ImportError, OSError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C while the module was loaded
            raise error.__cause__ from error
        raise EngineError(f"{target} is not installed ({error}). Install it: {_INSTALL[target]}") from error


def flavour_version(target: Target) -> str:
    """Return the version of an installed flavour."""
    return str(load_flavour(target).__version__)


_KEPT = 10_000
"""Limit of stored messages, because a runtime can log for as long as it lives."""


@dataclass
class BuildEvents:
    """Events that a build or a runtime reported through callbacks: the latest messages, bytes, and the first error."""

    messages: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))  # severity name, text
    written: int = 0  # bytes of the engine
    failure: BaseException | None = None  # the first exception in a callback

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Store an exception instead of passing it to the library, which would swallow it."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Store what the handlers of Ctrl-C and SIGTERM raise, and raise it at the end of the block at the latest.

        A handler may run at any line of a callback, also outside `guarded`. The progress monitor ends the build at its
        next step after a failure.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}

        def keep(number: int, frame: FrameType | None) -> None:
            with self.guarded():
                handlers[signal.Signals(number)](number, frame)

        try:
            for number in handlers:
                signal.signal(number, keep)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.failure is not None:
            raise self.failure

    def texts(self, *severities: str) -> list[str]:
        """Return the messages of these severities, without repetitions."""
        return list(dict.fromkeys(text for severity, text in self.messages if severity in severities))

    def number(self, label: str) -> int | None:
        """Return the largest number after a label in the messages (profiles have one each); `None` if there is none."""
        pattern = re.compile(re.escape(label) + r"\D*(\d+)")
        found = [match for _, text in self.messages if (match := pattern.search(text))]
        return max((int(match.group(1)) for match in found), default=None)


@functools.cache
def shared_logger(target: Target) -> Any:
    """Return the logger of a flavour, which adds messages to its `events`.

    A process has only one, because the library ignores a second logger while objects with the first one exist.
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
    """Make a writer that writes an engine to a file piece by piece, so that it is never in memory as a whole."""
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
    """Make a monitor that reports to a function, and stops the build after a callback has failed."""
    trt = load_flavour(target)

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            with events.guarded():
                progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with events.guarded():
                progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return events.failure is None

    return Monitor()
