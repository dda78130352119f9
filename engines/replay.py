"""Recording (capture) of steps as CUDA graphs, and a check of each recording against a step that runs directly.

A session with double-buffered states needs two recordings, one for each direction in which a step can read one set of
buffers and write the other; these directions are called turns, and steps alternate between them. A session whose steps
write their results back to the buffers that they read has a single turn.

Without a recorder, all steps run directly. With one, a turn is recorded at its first step: the step runs directly, then
is recorded, its results are erased, and a replay must reproduce them. This check is repeated at the next step of the
turn after all turns have been recorded. Running a step again on the same state writes the same values, also to the
caches, so the repetition is harmless.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jukebox_deploy.contract import GraphSpec, TensorSpec
from jukebox_deploy.engines.device import Recording
from jukebox_deploy.errors import EngineError

SAME = 1e-3
"""Tolerance for the difference between a replayed step and the step itself, relative to a tensor's largest value.

A change of kernels could cause a difference of this size.
"""

_ADVICE = "Run without: --no-cuda-graph"

Work = Callable[[], None]
"""A function that enqueues work on the device's stream."""


class Watched(Protocol):
    """A tensor (or some slots of it) that a step writes, and whose values are compared after a replay."""

    @property
    def name(self) -> str:
        """Name of the tensor."""

    @property
    def is_read(self) -> bool:
        """Whether the step also reads these values."""

    def read(self) -> np.ndarray:
        """Wait for the stream, and return a copy of the values."""

    def write(self, values: np.ndarray) -> None:
        """Restore values that `read` returned."""

    def wipe(self) -> None:
        """Set all bits to one, which is NaN for floats and -1 for integers."""


def tensors_to_watch(step: GraphSpec) -> tuple[TensorSpec, ...]:
    """Return the tensors of a step to compare: all results, and of the caches the last, which depends on all layers."""
    results = [spec for spec in step.outputs if not spec.in_place]
    caches = [spec for spec in step.states if spec.in_place]
    return (*results, *caches[-1:])


@dataclass(frozen=True)
class Turn:
    """One direction between the double buffers, with the tensors that a step in this direction writes."""

    watched: Sequence[Watched]
    bind: Work = lambda: None  # called before the step runs directly or is recorded


@dataclass(frozen=True)
class Recorder:
    """The way in which steps are recorded, and whether recording is required."""

    record: Callable[[Work], Recording]  # records what a function enqueues, without executing it
    required: bool = True  # False: a step that cannot be recorded runs directly, with a warning


class ReplayedSteps:
    """Runs steps: by replaying a recording of each turn, or directly if nothing records them."""

    def __init__(self, label: str, recorder: Recorder | None, enqueue: Work, turns: Sequence[Turn]) -> None:
        """`enqueue` enqueues one step on the stream; `label` begins all messages.

        `recorder`: `None` to run steps directly; then no tensor of the turns is read.
        """
        self._label = label
        self._recorder = recorder
        self._enqueue = enqueue
        self._turns = turns
        self._recordings: dict[int, Recording] = {}
        self._settled: set[int] = set()  # turns whose recordings have passed the check after all turns were recorded

    @property
    def records(self) -> bool:
        """Whether steps are recorded; false without a recorder, and once a recording failed that was not required."""
        return self._recorder is not None

    def run(self, turn: int) -> None:
        """Run one step. Raises `EngineError` if it cannot be recorded, or if its replay gives other results."""
        if turn in self._settled:
            self._recordings[turn].replay()
        elif self._recorder is None:
            self._run_plainly(self._turns[turn])
        else:
            self._run_checked(turn, self._recorder)
            if len(self._recordings) == len(self._turns):
                self._settled.add(turn)

    def _run_plainly(self, turn: Turn) -> None:
        turn.bind()
        self._enqueue()

    def _run_checked(self, number: int, recorder: Recorder) -> None:
        """Run a step directly, record it unless it has been recorded, erase its results, and replay it.

        A turn is checked when it is recorded, and again after all turns have been recorded: the recordings share
        objects (such as an execution context) to which later turns bind other addresses.
        """
        turn = self._turns[number]
        before = [watched.read() for watched in turn.watched if watched.is_read]
        self._run_plainly(turn)  # TensorRT needs such a run before a capture anyway
        expected = [watched.read() for watched in turn.watched]
        if number not in self._recordings:
            try:
                self._recordings[number] = recorder.record(self._enqueue)
            except EngineError as error:
                self._do_without(error, recorder.required)
                return
        _undo(turn, before)
        self._recordings[number].replay()
        self._compare(turn, expected)

    def _do_without(self, error: EngineError, required: bool) -> None:
        """Run steps directly from now on. Raises `EngineError` if recording is required."""
        said = f"{self._label}: the step cannot be recorded as a CUDA graph: {error}"
        if required:
            raise EngineError(f"{said} {_ADVICE}") from error
        warnings.warn(f"{said} Steps run without a CUDA graph.", RuntimeWarning, stacklevel=2)
        self._recorder = None
        self.release()

    def _compare(self, turn: Turn, expected: Sequence[np.ndarray]) -> None:
        for watched, values in zip(turn.watched, expected, strict=True):
            difference = largest_difference(values, watched.read())
            if difference > SAME:
                self.release()
                raise EngineError(
                    f"{self._label}: a step replayed as a CUDA graph gives other values of {watched.name} than the "
                    f"step itself (relative difference {difference:.2g}). {_ADVICE}"
                )

    def release(self) -> None:
        """Release all recordings, also if releasing one of them fails. No step may be running."""
        recordings = list(self._recordings.values())
        self._recordings.clear()
        self._settled.clear()
        with ExitStack() as stack:
            for recording in recordings:
                stack.callback(recording.release)


def _undo(turn: Turn, before: Sequence[np.ndarray]) -> None:
    """Undo the step that ran directly: restore the watched tensors that it read, and erase the others."""
    values = iter(before)
    for watched in turn.watched:
        if watched.is_read:
            watched.write(next(values))
        else:
            watched.wipe()


@contextmanager
def no_collection() -> Iterator[None]:
    """Disable garbage collection during a capture, which a finaliser that waits or frees memory would invalidate."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def largest_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the largest difference: for floats relative to the largest value, for unequal integers infinity."""
    if np.array_equal(expected.view(np.uint8), found.view(np.uint8)):
        return 0.0
    if expected.dtype.kind in "iub":
        return np.inf
    one, other = expected.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return np.inf
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(one - other)) / max(float(np.nanmax(np.abs(one))), 1e-30))
