"""Ctrl-C and SIGTERM during training, which wait for the end of a step because half a step cannot be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from torch import distributed


@dataclass
class HeldSignals:
    """The signals of a block whose signals are held back."""

    received: int | None = None  # number of the first one


@contextmanager
def held_signals() -> Iterator[HeldSignals]:
    """Hold Ctrl-C and SIGTERM back until the end of the block, where the first one takes effect.

    The block is expected to end soon after `received` is set. A second signal takes effect at once, except in processes
    that `torchrun` has started: it passes every signal on, so they receive each Ctrl-C twice. Signals that were ignored
    before stay ignored. Outside the main thread, nothing is held back.
    """
    held, before = HeldSignals(), _handlers()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hold(number: int, frame: FrameType | None) -> None:
        if held.received is None:
            held.received = number
        elif not distributed.is_torchelastic_launched():
            restore()
            signal.raise_signal(number)

    try:
        for number in before:
            signal.signal(number, hold)
        yield held
    finally:
        restore()
    if held.received is not None:
        signal.raise_signal(held.received)


def _handlers() -> dict[signal.Signals, signal._HANDLER]:
    """Return the handlers of the signals that can be held back."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # `None` is a handler that was not installed from Python, and could not be restored.
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
