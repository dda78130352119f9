"""Shows events to people: a bar per level in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.runtime.events import DecodeProgress, Event, LevelProgress, SongDecoded, SongWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LINE_SECONDS = 10.0  # between two plain lines


@dataclass
class LevelRate:
    """How fast the codes of one level come, all songs together; codes found there do not count."""

    codes_per_second: float  # of audio
    begun: float  # seconds on the clock
    _found: dict[int, int] = field(default_factory=dict)
    _done: dict[int, int] = field(default_factory=dict)
    _total: dict[int, int] = field(default_factory=dict)
    _now: float = 0.0

    def note(self, event: LevelProgress, now: float) -> None:
        """Take over what an event says."""
        self._found[event.song], self._done[event.song] = event.found, event.done
        self._total[event.song] = event.total
        self._now = now

    @property
    def done(self) -> int:
        """Codes there are."""
        return sum(self._done.values())

    @property
    def total(self) -> int:
        """Codes there shall be."""
        return sum(self._total.values())

    @property
    def tokens_per_second(self) -> float:
        """Codes sampled per second; 0 before there are any."""
        elapsed = self._now - self.begun
        return (self.done - sum(self._found.values())) / elapsed if elapsed > 0 else 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of audio sampled per second."""
        return self.tokens_per_second / self.codes_per_second

    @property
    def seconds_left(self) -> float | None:
        """Until the level is done, at this rate; `None` while the rate is unknown."""
        rate = self.tokens_per_second
        return (self.total - self.done) / rate if rate else None

    def __str__(self) -> str:
        """For instance `120.0 tokens/s, 0.35 x real time, 0:01:10 left`."""
        if self.seconds_left is None:
            return "starting"
        left = _clock_time(self.seconds_left)
        return f"{self.tokens_per_second:.1f} tokens/s, {self.times_real_time:.3g} x real time, {left} left"


class ProgressReport:
    """Give it every event: `with ProgressReport(vqvae, console) as report: report.show(event)`."""

    def __init__(self, vqvae: VQVAEConfig, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._vqvae = vqvae
        self._console = console
        self._clock = clock
        self._rates: dict[int, LevelRate] = {}
        self._tasks: dict[str, TaskID] = {}
        self._last_line = clock()
        self._bars: Progress | None = None
        if console.is_terminal:
            columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
            self._bars = Progress(*columns, console=console)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        if self._bars:
            self._bars.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case LevelProgress():
                self._show_level(event)
            case DecodeProgress(level, song, done, total):
                self._draw(f"song {song + 1}, decoding level {level}", done, total, "")
            case SongWarning(song, text):
                self._line(f"song {song + 1}: warning: {text}")
            case SongDecoded(song=song, wav=wav):
                scaled = f", scaled by {wav.scale:.3f} because its peak was {wav.peak:.3f}" if wav.scale != 1.0 else ""
                self._line(f"song {song + 1}: {wav.seconds:.2f} s in {wav.path}{scaled}")

    def _show_level(self, event: LevelProgress) -> None:
        now = self._clock()
        if event.level not in self._rates:
            per_second = self._vqvae.sample_rate / self._vqvae.hop_length(event.level)
            self._rates[event.level] = LevelRate(per_second, begun=now)
        rate = self._rates[event.level]
        rate.note(event, now)
        self._draw(f"level {event.level}", rate.done, rate.total, str(rate))

    def _draw(self, name: str, done: int, total: int, note: str) -> None:
        """Move a bar, or write a line every so many seconds and at the end."""
        if self._bars:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, note=note)
            self._bars.update(self._tasks[name], completed=done, total=total, note=note)
        elif done == total or self._clock() - self._last_line >= _LINE_SECONDS:
            self._last_line = self._clock()
            self._line(f"{name}: {done} of {total} codes" + (f", {note}" if note else ""))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _clock_time(seconds: float) -> str:
    """For instance `0:01:10`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
