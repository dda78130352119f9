"""One level of several songs: continuous batching over the slots of one prior.

Every song is a row of windows, one after the other. A song stays in its slot until its level is
done; then the next song gets the slot at once, while the others go on. So songs in different
windows and phases share the batch, and no slot waits for the slowest song.
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


@dataclass(frozen=True)
class SongLevel:
    """One song at one level: what there is, what is to come, and whom to ask and to tell."""

    song: int
    request: SongRequest
    total: int  # codes
    windows: Sequence[Window]  # planned from the codes that were given, not from those sampled so far
    codes: np.ndarray  # [given and sampled so far], int64
    condition: Callable[[Window], WindowConditioning]
    commit: Callable[[np.ndarray], None]
    given: int = 0  # codes that were there when the level was begun


class _Track:
    """A song's way through its level: from the codes that were found, or again from those that were given."""

    def __init__(self, plan: SongLevel, retrace: bool) -> None:
        self.plan = plan
        self.codes = plan.codes
        self._found = len(plan.codes)
        begin = plan.given if retrace else self._found
        self.length = plan.total - begin
        self._windows = deque(w for w in plan.windows if w.start + w.end > begin)

    @property
    def window(self) -> Window | None:
        """The window that is next or in work; `None` when the level is done."""
        return self._windows[0] if self._windows else None

    def task(self, window: Window, level: int) -> WindowTask:
        """The window, ready for a slot."""
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
        """Take over the current window's codes so far."""
        self.codes = np.concatenate([self.codes[: self._windows[0].start], window_codes])

    def next_window(self) -> None:
        """Leave a window behind."""
        self._windows.popleft()

    def finish_window(self) -> None:
        """Store a window that was sampled. From now on a lyric token is code 0 (specification section 10)."""
        self.codes = np.maximum(self.codes, 0)
        self.commit()

    def commit(self) -> None:
        """Have the codes so far stored."""
        self.plan.commit(self.codes)

    def progress(self, level: int) -> LevelProgress:
        """How far the song is."""
        return LevelProgress(level, self.plan.song, self._found, len(self.codes), self.plan.total)


class _Pace:
    """How many steps to ask for at once, so that news come about every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._begun = 0.0
        self.steps = 8

    def begin(self) -> None:
        """Start the clock."""
        self._begun = time.monotonic()

    def end(self, steps: int) -> None:
        """Adapt, at most by a factor of two, to how long these steps took."""
        elapsed = max(time.monotonic() - self._begun, 1e-6)
        self.steps = max(1, min(2 * self.steps, int(steps * self._interval / elapsed)))


class LevelSampler:
    """Samples one level with the slots of one session.

    `retrace`: for sums that depend on what is computed together. Windows that an interrupted run has sampled take
    their slots and their time once more, idle, so that those to come are computed as they would have been.
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
        self._tracks: dict[Slot, _Track] = {}  # the slots at work
        self._pace = _Pace(interval=min(0.25, commit_seconds))
        self._committed = time.monotonic()

    def run(self, songs: Iterable[SongLevel]) -> Iterator[LevelProgress]:
        """Sample all songs to their totals; every code has been handed to `commit` at the end.

        Raises `SamplingError` when a logit is not a number.
        """
        tracks = [_Track(song, self._retrace) for song in songs]
        yield from (track.progress(self._level) for track in tracks)
        # Longest first, so that the slots finish together.
        waiting = deque(sorted((t for t in tracks if t.length), key=lambda t: t.length, reverse=True))
        while self._fill(waiting):
            yield from self._prefill()
            self._step()
            yield from (track.progress(self._level) for track in self._tracks.values())
            self._finish_windows()
            self._commit_at_times()

    def _fill(self, waiting: deque[_Track]) -> bool:
        """Give every free slot the next song; whether any slot is at work."""
        for slot in self._slots:
            if slot not in self._tracks and waiting:
                self._tracks[slot] = waiting.popleft()
                self._load(slot)
        return bool(self._tracks)

    def _load(self, slot: Slot) -> None:
        """Load the next window of the slot's song, or free the slot when there is none."""
        track = self._tracks[slot]
        window = track.window
        if window is None:
            del self._tracks[slot]
            slot.release()
        elif window.start + window.end <= len(track.codes):
            slot.pass_over(window)
        else:
            slot.load(track.task(window, self._level))

    def _at_work(self) -> dict[Slot, _Track]:
        """The slots that sample."""
        return {slot: track for slot, track in self._tracks.items() if not slot.passes}

    def _prefill(self) -> Iterator[LevelProgress]:
        """Work through the known codes of the windows just loaded, neighbouring slots together."""
        while waiting := [slot for slot in self._tracks if slot.prefill_left()]:
            at_work = {slot.index for slot in waiting if not slot.passes}
            for run in _neighbours(slot.index for slot in waiting):
                if at_work.intersection(run):
                    self._session.prefill(run)
            for slot in waiting:
                slot.prefilled_block()
                yield self._tracks[slot].progress(self._level)

    def _step(self) -> None:
        """Step all slots at once, never beyond the end of a window, and fetch the new codes."""
        at_work = self._at_work()
        count = min(slot.steps_left() for slot in self._tracks)
        if at_work:
            count = min(count, self._pace.steps)
            self._pace.begin()
            self._session.step(count)
        for slot in self._tracks:
            slot.stepped(count)
        for slot, track in at_work.items():
            if not slot.is_finite():
                raise SamplingError(
                    f"level {self._level}, song {track.plan.song}: a logit was not a number within the {count} steps "
                    f"after code {len(track.codes)}. The weights are damaged or too large for this precision; try fp32."
                )
            track.take(slot.codes())
        if at_work:
            self._pace.end(count)

    def _finish_windows(self) -> None:
        """Store the windows that are full and put the next ones in their slots."""
        for slot, track in list(self._tracks.items()):
            if slot.steps_left() == 0:
                if not slot.passes:
                    track.finish_window()
                track.next_window()
                self._load(slot)

    def _commit_at_times(self) -> None:
        """Store the codes of the windows in work every so many seconds."""
        if time.monotonic() - self._committed >= self._commit_seconds:
            for track in self._at_work().values():
                track.commit()
            self._committed = time.monotonic()


def _neighbours(indices: Iterable[int]) -> Iterator[range]:
    """Cut slot numbers into runs of neighbours: 0, 1, 3 -> 0..1, 3..3."""
    # Within a run, a number and its place in the sorted list differ by the same amount.
    for _, run in groupby(enumerate(sorted(indices)), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        yield range(numbers[0], numbers[-1] + 1)
