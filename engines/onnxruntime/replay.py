"""Steps that ONNX Runtime records as CUDA graphs, when a run's options ask for it, and replays from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from jukebox_deploy.engines.onnxruntime.memory import DeviceBuffer

Run = Callable[[int, Any], None]
"""Run the step in a turn of the buffers, with ONNX Runtime's options of a run."""

_PLAINLY = -1


@dataclass(frozen=True)
class OnnxRuntimeRecording:
    """The recording of one turn, which the sessions hold and let go of."""

    run: Callable[[], None]

    def replay(self) -> None:
        """See `Recording`."""
        self.run()

    def release(self) -> None:
        """See `Recording`: it goes with the session."""


class TurnedSteps:
    """The step in the turn that was bound last, run plainly or recorded."""

    def __init__(self, run: Run, options_of: Callable[[int], Any]) -> None:
        """`options_of`: makes the options of a run from the number of a recording."""
        self._run = run
        self._turn = 0
        self._plainly = options_of(_PLAINLY)
        self._recorded = [options_of(turn + 1) for turn in (0, 1)]

    def bind(self, turn: int) -> None:
        """Choose the turn."""
        self._turn = turn

    def enqueue(self) -> None:
        """One run that is neither recorded nor replayed."""
        self._run(self._turn, self._plainly)

    def record(self, work: Callable[[], None]) -> OnnxRuntimeRecording:
        """What ONNX Runtime does by itself, after runs of its own: `work` is the step, and it does no harm again."""
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
