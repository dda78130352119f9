"""What the runtime tells while it works. It never prints: it yields these, and others show them."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.runtime.audio import WavReport


@dataclass(frozen=True)
class SongWarning:
    """Something the user should know about a song that is sampled nevertheless."""

    song: int  # its place in the list of songs, as in all events
    text: str


@dataclass(frozen=True)
class LevelProgress:
    """How far a song is in one level, in codes. The first events of a level name all its songs."""

    level: int
    song: int
    found: int  # codes that were there when this run came to the level
    done: int
    total: int


@dataclass(frozen=True)
class DecodeProgress:
    """How far a song's codes have become sound, in codes."""

    level: int
    song: int
    done: int
    total: int


@dataclass(frozen=True)
class SongDecoded:
    """A sound file is finished."""

    level: int
    song: int
    wav: WavReport


Event = SongWarning | LevelProgress | DecodeProgress | SongDecoded
