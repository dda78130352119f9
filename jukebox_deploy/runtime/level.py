"""Sampling of one level of several songs: continuous batching over the slots of one prior.

The windows of a song are sampled one after another. A song keeps its slot until its level is done; the next waiting
song then takes the slot at once, while the other slots continue. So songs in different windows and phases share the
batch, and no slot waits for the slowest song.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.engine import PriorSession
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime.events import LevelProgress
from jukebox_deploy.runtime.randomness import uniforms
from jukebox_deploy.runtime.slot import Slot, WindowConditioning, WindowTask
from jukebox_deploy.runtime.song import SongRequest
from jukebox_deploy.runtime.windows import Window

_COMMITTING_SHARE = 0.05
"""Share of the time that storing the codes of unfinished windows may take."""


@dataclass(frozen=True)
class SongLevel:
    """One song at one level: its plan, its codes so far, and callbacks to condition windows and store codes."""

    song: int
    request: SongRequest
    total: int  # codes that the level has when it is done
    windows: Sequence[Window]  # planned from the given codes, not from those sampled so far
    codes: np.ndarray  # [given and sampled so far], int64
    condition: Callable[[Window], WindowConditioning]
    commit: Callable[[np.ndarray], None]  # stores all codes so far
    given: int = 0  # codes that come from the song's source and are not sampled


class _Track:
    """Progress of one song through its level.

    It starts after the codes that exist already or, with `retrace`, after those that were given.
    """

    def __init__(self, plan: SongLevel, retrace: bool) -> None:
        self.plan = plan
        self._codes = np.zeros(plan.total, np.int64)
        self._done = self._found = len(plan.codes)
        self._codes[: self._done] = plan.codes
        begin = plan.given if retrace else self._found
        self.length = plan.total - begin
        self._windows = deque(w for w in plan.windows if w.start + w.end > begin)

    @property
    def codes(self) -> np.ndarray:
        """The song's codes so far."""
        return self._codes[: self._done]

    @property
    def window(self) -> Window | None:
        """The current window, loaded or about to be; `None` when the level is done."""
        return self._windows[0] if self._windows else None

    def task(self, window: Window, level: int) -> WindowTask:
        """Prepare a window for a slot."""
        request = self.plan.request
        return WindowTask(
            codes=self.codes[window.start : window.start + window.end],
            known=window.known,
            end=window.end,
            uniforms=uniforms(request.seed, request.song, level, window.start, window.end),
            settings=request.settings(level),
            conditioning=self.plan.condition(window),
        )

    def take(self, window_codes: np.ndarray) -> None:
        """Update the song with the current window's codes so far."""
        start = self._windows[0].start
        self._done = start + len(window_codes)
        self._codes[start : self._done] = window_codes

    def next_window(self) -> None:
        """Advance to the next window."""
        self._windows.popleft()

    def finish_window(self) -> None:
        """Store a window that was sampled, with lyric tokens replaced by code 0 (specification section 10)."""
        np.maximum(self.codes, 0, out=self.codes)
        self.commit()

    def commit(self) -> None:
        """Store the codes so far."""
        self.plan.commit(self.codes)

    def progress(self, level: int) -> LevelProgress:
        """Return the progress event of the song."""
        return LevelProgress(level, self.plan.song, self._found, len(self.codes), self.plan.total)


class _Pace:
    """Number of steps to run per call, adapted so that a call takes about `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._begun = 0.0
        self.steps = 8

    def begin(self) -> None:
        """Start timing a call."""
        self._begun = time.monotonic()

    def end(self, steps: int) -> None:
        """Adapt the number of steps to the time that this call took; it at most doubles."""
        elapsed = max(time.monotonic() - self._begun, 1e-6)
        self.steps = max(1, min(2 * self.steps, int(steps * self._interval / elapsed)))


class LevelSampler:
    """Sampler of one level with the slots of one session.

    `retrace` is for engines that are not batch-invariant. Windows that an interrupted run has already sampled then
    occupy their slots again, idle, for as many prefill blocks and steps as they took. So the remaining windows are
    computed beside the same slots as without the interruption, and get the same codes.
    """

    def __init__(
        self, session: PriorSession, prior: PriorConfig, commit_seconds: float = 2.0, *, retrace: bool = False
    ) -> None:
        self._session = session
        self._level = prior.level
        self._prior = prior
        self._commit_seconds = commit_seconds
        self._retrace = retrace
        self._slots = [Slot(session, prior, index) for index in range(session.slots)]
        self._tracks: dict[Slot, _Track] = {}  # of the occupied slots
        self._pace = _Pace(interval=min(0.25, commit_seconds))
        self._next_commit = time.monotonic() + commit_seconds

    def run(self, songs: Iterable[SongLevel]) -> Iterator[LevelProgress]:
        """Sample all songs to their totals; by the end, every code has been passed to `commit`.

        Raises `SamplingError` when a logit is NaN or infinite.
        """
        tracks = [_Track(song, self._retrace) for song in songs]
        yield from (track.progress(self._level) for track in tracks)
        # Longest first, so that the slots finish at about the same time.
        waiting = deque(sorted((t for t in tracks if t.length), key=lambda t: t.length, reverse=True))
        while self._fill(waiting):
            yield from self._prefill()
            self._step()
            yield from (track.progress(self._level) for track in self._tracks.values())
            self._finish_windows()
            self._commit_if_due()

    def _fill(self, waiting: deque[_Track]) -> bool:
        """Load the next waiting songs into the free slots; return whether any slot is occupied."""
        for slot in self._slots:
            if slot not in self._tracks and waiting:
                self._tracks[slot] = waiting.popleft()
                self._load(slot)
        return bool(self._tracks)

    def _load(self, slot: Slot) -> None:
        """Load the current window of the slot's song, or free the slot if the song has no more windows."""
        track = self._tracks[slot]
        window = track.window
        if window is None:
            del self._tracks[slot]
            slot.release()
        elif window.start + window.end <= len(track.codes):  # sampled by the interrupted run
            slot.hold_place(window)
        else:
            slot.load(track.task(window, self._level))

    def _active_tracks(self) -> dict[Slot, _Track]:
        """Return the occupied slots that really compute, with their songs."""
        return {slot: track for slot, track in self._tracks.items() if not slot.holds_place}

    def _prefill(self) -> Iterator[LevelProgress]:
        """Prefill the known codes of the windows just loaded, adjacent slots together."""
        while waiting := [slot for slot in self._tracks if slot.prefill_left()]:
            active = {slot.index for slot in waiting if not slot.holds_place}
            for run in _adjacent(slot.index for slot in waiting):
                if active.intersection(run):
                    self._session.prefill(run)
            for slot in waiting:
                slot.prefilled_block()
                yield self._tracks[slot].progress(self._level)

    def _step(self) -> None:
        """Step all slots together, not beyond the end of any window, and read the new codes."""
        active = self._active_tracks()
        count = min(slot.steps_left() for slot in self._tracks)
        if active:
            count = min(count, self._pace.steps)
            self._pace.begin()
            self._session.step(count)
        for slot in self._tracks:
            slot.stepped(count)
        for slot, track in active.items():
            if not slot.is_finite():
                raise SamplingError(
                    f"level {self._level}, song {track.plan.song}: a logit was NaN or infinite in one of the {count} "
                    f"steps after code {len(track.codes)}. The weights are damaged, or values overflow in this "
                    "precision; try fp32."
                )
            track.take(slot.codes())
        if active:
            self._pace.end(count)

    def _finish_windows(self) -> None:
        """Store the windows that are full and load the next windows into their slots."""
        for slot, track in list(self._tracks.items()):
            if slot.steps_left() == 0:
                if not slot.holds_place:
                    track.finish_window()
                track.next_window()
                self._load(slot)

    def _commit_if_due(self) -> None:
        """Store the codes of all unfinished windows if it is time.

        The device is idle meanwhile, so many long songs are stored less often than every `commit_seconds`, unless
        that is 0.
        """
        if (begun := time.monotonic()) < self._next_commit:
            return
        for track in self._active_tracks().values():
            track.commit()
        ended = time.monotonic()
        longest = max(self._commit_seconds, (ended - begun) / _COMMITTING_SHARE)
        self._next_commit = ended + (longest if self._commit_seconds else 0.0)


def _adjacent(indices: Iterable[int]) -> Iterator[range]:
    """Split slot numbers into runs of consecutive numbers: 0, 1, 3 -> 0..1, 3..3."""
    # Within a run, the difference between a number and its index in the sorted list is constant.
    for _, run in groupby(enumerate(sorted(indices)), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield range(numbers[0], numbers[-1] + 1)
