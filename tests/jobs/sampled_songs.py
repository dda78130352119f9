"""Song folders as `sample` leaves them, whose sound is whatever a test wants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jukebox_deploy.data.synthesis.performance import perform
from jukebox_deploy.data.synthesis.score import Song
from jukebox_deploy.runtime.song import Mode, SongLengths, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore
from tests.data.short_songs import RATE, short_song
from tests.data.song_folders import write_sound, write_table

HOPS = (8, 32, 128)
GENRES = ("ballad", "desert")
ARTISTS = ("organ valley", "eight bit harbour")


def write_song(
    folder: Path, sounds: dict[int, np.ndarray], artist: str = "", genre: str = "", given: float = 0.0, rate: int = RATE
) -> Path:
    """A song with a sound file for each level in `sounds`; a share of it was given, not sampled."""
    samples = len(next(iter(sounds.values())))
    totals = tuple(samples // hop for hop in HOPS)
    mode = {"mode": Mode.PRIMED, "source": "prompt.wav"} if given else {}
    request = SongRequest(seconds=samples / rate, artist=artist, genre=genre, **mode)  # type: ignore[arg-type]
    lengths = SongLengths(tuple(round(given * total) for total in totals), totals)
    with SongStore(folder) as store:
        store.begin(SongRecord("tiny", Fingerprint("engine", "checkpoint"), request, lengths), [])
    for level, samples_of_level in sounds.items():
        write_sound(folder / f"level_{level}.wav", samples_of_level, rate)
    return folder


def refrain(number: int) -> Song:
    """A refrain of one of two artists in one of two genres."""
    return short_song(number, artist=ARTISTS[number % 2], genre=GENRES[number // 2 % 2])


def write_corpus(folder: Path, count: int = 12) -> Path:
    """Refrains of both artists in both genres, with their table."""
    rows = []
    for number in range(count):
        song = refrain(number)
        write_sound(folder / f"{number:02}.flac", perform(song, RATE), RATE)
        rows.append({"file": f"{number:02}.flac", "artist": song.artist, "genres": [song.genre]})
    write_table(folder, rows)
    return folder
