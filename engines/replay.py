"""Steps recorded as CUDA graphs, and checked against steps that are not.

Where a step reads one buffer of each state and writes the other, there are two recordings that take turns;
where its results come back into the buffers that it read, there is one. Each is made at the first step of its
turn, on the state that is there: the step runs plainly, is recorded, its results are wiped out, and the
recording must bring them back, then and once more when all are made. A step from the same state writes the
same things, caches included, so that doing it twice does no harm.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jukebox_deploy.contract import GraphSpec, TensorSpec
from jukebox_deploy.engines.device import Recording
from jukebox_deploy.errors import EngineError

SAME = 1e-3
"""Of a tensor's largest number: by how much a replayed step may differ. Other kernels would differ by no less."""

_ADVICE = "Run without: --no-cuda-graph"

Work = Callable[[], None]
"""Something that is put into a stream."""


class Watched(Protocol):
    """Numbers that a step writes."""

    @property
    def name(self) -> str:
        """Of the tensor."""

    @property
    def is_read(self) -> bool:
        """Whether the step also reads them."""

    def read(self) -> np.ndarray:
        """A copy of them, once all work is done."""

    def write(self, values: np.ndarray) -> None:
        """Put what `read` gave back in its place."""

    def wipe(self) -> None:
        """Set all bytes to ones: as a float no number at all, as an integer minus one."""


def tensors_to_watch(step: GraphSpec) -> tuple[TensorSpec, ...]:
    """What a step writes: all of it but the caches, and of these the last layer's, which depends on all before."""
    results = [spec for spec in step.outputs if not spec.in_place]
    caches = [spec for spec in step.states if spec.in_place]
    return (*results, *caches[-1:])


@dataclass(frozen=True)
class Turn:
    """A step of one turn of the buffers."""

    watched: Sequence[Watched]
    bind: Work = lambda: None  # done before the step is run and recorded


@dataclass(frozen=True)
class Recorder:
    """How steps are recorded, and whether they must be."""

    record: Callable[[Work], Recording]  # what a function puts into the stream, without doing it
    required: bool = True  # False: steps that cannot be recorded run plainly, with a warning


class ReplayedSteps:
    """The recordings of all turns."""

    def __init__(self, label: str, recorder: Recorder, enqueue: Work, turns: Sequence[Turn]) -> None:
        """`enqueue`: put one step into the stream; `label`: of messages."""
        self._label = label
        self._recorder = recorder
        self._enqueue = enqueue
        self._turns = turns
        self._recordings: dict[int, Recording] = {}
        self._settled: set[int] = set()  # turns whose recordings are right beside all others
        self._plain = False

    @property
    def records(self) -> bool:
        """Whether steps are recorded; not where that failed and was not required."""
        return not self._plain

    def run(self, turn: int) -> None:
        """One step. Raises `EngineError` if it cannot be recorded, or the recording does something else."""
        if turn in self._settled:
            self._recordings[turn].replay()
        elif self._plain:
            self._run_plainly(self._turns[turn])
        else:
            self._run_checked(turn)
            if len(self._recordings) == len(self._turns):
                self._settled.add(turn)

    def _run_plainly(self, turn: Turn) -> None:
        turn.bind()
        self._enqueue()

    def _run_checked(self, number: int) -> None:
        """Run a step plainly, record it if it is not, and replay it in its place.

        A turn is checked when it is recorded, and once more when all are: later ones bind other addresses to what
        they share with it.
        """
        turn = self._turns[number]
        before = [watched.read() for watched in turn.watched if watched.is_read]
        self._run_plainly(turn)  # which TensorRT wants before a recording anyway
        expected = [watched.read() for watched in turn.watched]
        if number not in self._recordings:
            try:
                self._recordings[number] = self._recorder.record(self._enqueue)
            except EngineError as error:
                self._do_without(error)
                return
        _undo(turn, before)
        self._recordings[number].replay()
        self._compare(turn, expected)

    def _do_without(self, error: EngineError) -> None:
        """Run plainly from now on. Raises `EngineError` if recordings are required."""
        said = f"{self._label}: the step cannot be recorded as a CUDA graph: {error}"
        if self._recorder.required:
            raise EngineError(f"{said} {_ADVICE}") from error
        warnings.warn(f"{said} Steps run without.", RuntimeWarning, stacklevel=2)
        self._plain = True
        self.release()

    def _compare(self, turn: Turn, expected: Sequence[np.ndarray]) -> None:
        for watched, values in zip(turn.watched, expected, strict=True):
            difference = largest_difference(values, watched.read())
            if difference > SAME:
                self.release()
                raise EngineError(
                    f"{self._label}: a step replayed as a CUDA graph gives other {watched.name} than the step itself "
                    f"(relative difference {difference:.2g}). {_ADVICE}"
                )

    def release(self) -> None:
        """Let go of the recordings, whatever one of them says; no step is under way."""
        recordings = list(self._recordings.values())
        self._recordings.clear()
        self._settled.clear()
        with ExitStack() as stack:
            for recording in recordings:
                stack.callback(recording.release)


def _undo(turn: Turn, before: Sequence[np.ndarray]) -> None:
    """Undo the plain step, as far as it is watched."""
    values = iter(before)
    for watched in turn.watched:
        if watched.is_read:
            watched.write(next(values))
        else:
            watched.wipe()


def largest_difference(expected: np.ndarray, found: np.ndarray) -> float:
    """Relative to the largest number for floats; infinite for integers that are not equal."""
    if np.array_equal(expected.view(np.uint8), found.view(np.uint8)):
        return 0.0
    if expected.dtype.kind in "iub":
        return np.inf
    one, other = expected.astype(np.float64), found.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return np.inf
    with np.errstate(invalid="ignore"):
        return float(np.nanmax(np.abs(one - other)) / max(float(np.nanmax(np.abs(one))), 1e-30))
