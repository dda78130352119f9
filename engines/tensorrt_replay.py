"""Steps recorded as CUDA graphs, and checked against steps that are not.

A step reads one buffer of each state and writes the other, so there are two recordings that take turns.
Each is made at the first step of its turn, on the state that is there: the step runs plainly, is recorded,
its results are wiped out, and the recording must bring them back. A step from the same state writes the same
things, caches included, so that doing it twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jukebox_deploy.contract import numpy_dtype
from jukebox_deploy.engines.device import Device, Recording
from jukebox_deploy.errors import EngineError

SAME = 1e-3
"""Of a tensor's largest number: by how much a replayed step may differ. Other kernels would differ by no less."""

_WIPED = 0xFF  # as a float no number at all, as an integer minus one


@dataclass(frozen=True)
class Watched:
    """Numbers that a step writes."""

    name: str
    dtype: str
    address: int
    bytes: int
    in_place: bool  # whether the step also reads them

    def read(self, device: Device) -> np.ndarray:
        """Their bytes."""
        content = np.empty(self.bytes, np.uint8)
        device.download(self.address, content)
        return content

    def largest_difference(self, expected: np.ndarray, found: np.ndarray) -> float:
        """Relative to the largest number for floats; infinite for integers that are not equal."""
        if np.array_equal(expected, found):
            return 0.0
        one, other = (content.view(numpy_dtype(self.dtype)) for content in (expected, found))
        if one.dtype.kind in "iub":
            return np.inf
        one, other = one.astype(np.float64), other.astype(np.float64)
        if not np.array_equal(np.isfinite(one), np.isfinite(other)):
            return np.inf
        with np.errstate(invalid="ignore"):
            return float(np.nanmax(np.abs(one - other)) / max(float(np.nanmax(np.abs(one))), 1e-30))


@dataclass(frozen=True)
class Turn:
    """A step of one turn of the buffers."""

    bind: Callable[[], None]
    watched: Sequence[Watched]


class ReplayedSteps:
    """The recordings of both turns."""

    def __init__(self, label: str, device: Device, enqueue: Callable[[], None], turns: Sequence[Turn]) -> None:
        """`enqueue`: put one step into the stream; `label`: of messages."""
        self._label = label
        self._device = device
        self._enqueue = enqueue
        self._turns = turns
        self._recordings: dict[int, Recording] = {}

    def run(self, turn: int) -> None:
        """One step. Raises `EngineError` if it cannot be recorded, or the recording does something else."""
        if turn in self._recordings:
            self._recordings[turn].replay()
        else:
            self._recordings[turn] = self._record(self._turns[turn])

    def _record(self, turn: Turn) -> Recording:
        """Run a step plainly, record it, and replay it in its place."""
        before = [watched.read(self._device) for watched in turn.watched if watched.in_place]
        turn.bind()
        self._enqueue()  # which TensorRT wants before a recording anyway
        expected = [watched.read(self._device) for watched in turn.watched]
        try:
            recording = self._device.record(self._enqueue)
        except EngineError as error:
            raise EngineError(
                f"{self._label}: the step cannot be recorded as a CUDA graph: {error} Run without: --no-cuda-graph"
            ) from error
        self._wipe(turn, before)
        recording.replay()
        try:
            self._compare(turn, expected)
        except EngineError:
            recording.release()
            raise
        return recording

    def _wipe(self, turn: Turn, before: Sequence[np.ndarray]) -> None:
        """Undo the plain step, as far as it is watched."""
        contents = iter(before)
        for watched in turn.watched:
            if watched.in_place:
                self._device.upload(watched.address, next(contents))
            else:
                self._device.fill(watched.address, _WIPED, watched.bytes)

    def _compare(self, turn: Turn, expected: Sequence[np.ndarray]) -> None:
        for watched, content in zip(turn.watched, expected, strict=True):
            difference = watched.largest_difference(content, watched.read(self._device))
            if difference > SAME:
                raise EngineError(
                    f"{self._label}: a step replayed as a CUDA graph gives other {watched.name} than the step itself "
                    f"(relative difference {difference:.2g}). Run without: --no-cuda-graph"
                )

    def release(self) -> None:
        """Let go of the recordings; no step is under way."""
        for recording in self._recordings.values():
            recording.release()
        self._recordings.clear()
