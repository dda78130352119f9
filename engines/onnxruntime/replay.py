"""Recording of steps as CUDA graphs by ONNX Runtime itself.

The options of a run name a recording by its number. With the first such run ONNX Runtime captures the recording, after
warm-up runs that it makes itself; with later ones it replays it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jukebox_deploy.engines.onnxruntime.memory import DeviceBuffer

Run = Callable[[int, Any], None]
"""Runs the step of a turn (see `engines/replay.py`) with ONNX Runtime's run options."""

_PLAINLY = -1


@dataclass(frozen=True)
class OnnxRuntimeRecording:
    """The recording of one turn. ONNX Runtime's sessions own it."""

    run: Callable[[], None]

    def replay(self) -> None:
        """See `Recording`."""
        self.run()

    def release(self) -> None:
        """Do nothing: the recording is released with the session."""


class TurnedSteps:
    """Runs or records the step of the turn that was bound last."""

    def __init__(self, run: Run, options_of: Callable[[int], Any]) -> None:
        """`options_of` makes run options from the number of a recording; for a session that records nothing: `None`."""
        self._run = run
        self._turn = 0
        self._plainly = options_of(_PLAINLY)
        self._recorded = [options_of(turn + 1) for turn in (0, 1)]

    def bind(self, turn: int) -> None:
        """Choose the turn of the next runs."""
        self._turn = turn

    def enqueue(self) -> None:
        """Run the step without recording or replaying it."""
        self._run(self._turn, self._plainly)

    def record(self, work: Callable[[], None]) -> OnnxRuntimeRecording:
        """Let ONNX Runtime record the step, which also runs it.

        `work` is not used: ONNX Runtime captures its own run. Running the step again on the same state is harmless.
        """
        turn, options = self._turn, self._recorded[self._turn]
        self._run(turn, options)
        return OnnxRuntimeRecording(lambda: self._run(turn, options))


@dataclass(frozen=True)
class WatchedDeviceBuffer:
    """A whole tensor on the device, for `ReplayedSteps`."""

    name: str
    is_read: bool
    buffer: DeviceBuffer

    def read(self) -> np.ndarray:
        """See `Watched`."""
        return self.buffer.whole()

    def write(self, values: np.ndarray) -> None:
        """See `Watched`."""
        self.buffer.replace(values)

    def wipe(self) -> None:
        """See `Watched`."""
        values = self.buffer.whole()
        values.view(np.uint8)[...] = 0xFF
        self.buffer.replace(values)
