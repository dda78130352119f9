"""Events that the runtime yields while it works. It never prints; the caller displays them."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.runtime.audio import WavReport


@dataclass(frozen=True)
class SongWarning:
    """Something that the user should know about a song; it does not stop the sampling."""

    song: int  # index in the list of songs, as in all events
    text: str


@dataclass(frozen=True)
class LevelProgress:
    """Progress of a song at one level, in codes. A level begins with one event for each of its songs."""

    level: int
    song: int
    found: int  # codes that already existed when this run reached the level
    done: int
    total: int


@dataclass(frozen=True)
class DecodeProgress:
    """Progress of decoding a song to audio, in codes."""

    level: int
    song: int
    done: int
    total: int


@dataclass(frozen=True)
class SongDecoded:
    """The sound file of a level has been written."""

    level: int
    song: int
    wav: WavReport


Event = SongWarning | LevelProgress | DecodeProgress | SongDecoded
