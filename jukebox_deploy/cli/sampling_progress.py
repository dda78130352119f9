"""Sampling events as progress: a bar per level, over all songs, and a line per finished song."""

from __future__ import annotations

from dataclasses import dataclass, field

from jukebox_deploy.cli.progress import Progress, ProgressDisplay
from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.runtime.events import DecodeProgress, Event, LevelProgress, SongDecoded, SongWarning


@dataclass
class LevelSum:
    """Progress of one level over all songs; codes from an earlier run do not count towards its speed."""

    codes_per_second: float  # of audio
    _songs: dict[int, LevelProgress] = field(default_factory=dict)

    def after(self, event: LevelProgress) -> Progress:
        """Return the progress of the level after an event."""
        self._songs[event.song] = event
        songs = self._songs.values()
        done, total, found = (sum(getattr(song, name) for song in songs) for name in ("done", "total", "found"))
        return Progress(f"level {event.level}", done, total, "codes", found, speed=self._speed)

    def _speed(self, rate: float) -> str:
        return f"{rate:.1f} tokens/s, {rate / self.codes_per_second:.3g} x real time"


class SamplingProgress:
    """Shows every event of a run on a display."""

    def __init__(self, vqvae: VQVAEConfig, display: ProgressDisplay, *, alone: bool = False) -> None:
        """Songs are numbered like their folders, `song_0` and so on; a song that is `alone` has no number."""
        self._alone = alone
        self._vqvae = vqvae
        self._display = display
        self._levels: dict[int, LevelSum] = {}

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case LevelProgress(level):
                self._display.show(self._level(level).after(event))
            case DecodeProgress(level, song, done, total):
                self._display.show(Progress(f"{self._song(song)}, decoding level {level}", done, total, "codes"))
            case SongWarning(song, text):
                self._display.say(f"{self._song(song)}: warning: {text}")
            case SongDecoded(song=song, wav=wav):
                scaled = f", scaled by {wav.scale:.3f} because its peak was {wav.peak:.3f}" if wav.scale != 1.0 else ""
                self._display.say(f"{self._song(song)}: {wav.seconds:.2f} s in {wav.path}{scaled}")

    def _song(self, number: int) -> str:
        return "song" if self._alone else f"song {number}"

    def _level(self, level: int) -> LevelSum:
        if level not in self._levels:
            self._levels[level] = LevelSum(self._vqvae.sample_rate / self._vqvae.hop_length(level))
        return self._levels[level]
