"""What the demonstration is made of: a plucked chord to begin with, made-up names, a few lines to sing."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jukebox_deploy.files import atomic_path

PROMPT_RATE = 22_050
"""Half the model's rate: the prompt has to be resampled."""

ARTIST, GENRE = "the tin foxes", "folk"
ARTISTS = ("unknown", ARTIST, "glass harbour", "paper lanterns", "northern line")
GENRES = ("unknown", GENRE, "jazz", "ambient", "polka")
LYRICS = """Slow water over old stones,
a light on the other side,
and all of the hills are humming
the song of the turning tide."""

_CHORD = (196.0, 246.94, 293.66, 369.99, 440.0, 369.99, 293.66, 246.94)  # G major seven, in hertz
_NOTE_SECONDS = 0.2


def write_vocabulary(folder: Path) -> None:
    """Write the names as `v3_artist_ids.txt` and `v3_genre_ids.txt`, one `name;id` per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, names in (("artist", ARTISTS), ("genre", GENRES)):
        lines = [f"{name};{number}\n" for number, name in enumerate(names)]
        (folder / f"v3_{kind}_ids.txt").write_text("".join(lines), encoding="utf-8")


def write_lyrics(path: Path) -> None:
    """Write the lyrics as a text file."""
    path.write_text(LYRICS, encoding="utf-8")


def write_prompt(path: Path) -> None:
    """Write a broken chord as stereo FLAC."""
    import soundfile

    with atomic_path(path) as partial:
        soundfile.write(partial, broken_chord(), PROMPT_RATE, format="FLAC")


def broken_chord() -> np.ndarray:
    """One plucked string after the other, from left to right and back, float64 `[samples, 2]`."""
    note_length = round(_NOTE_SECONDS * PROMPT_RATE)
    sound = np.zeros((len(_CHORD) * note_length, 2))
    for number, frequency in enumerate(_CHORD):
        begin = number * note_length
        note = pluck(frequency, len(sound) - begin, seed=number)
        place = math.pi / 8 * (1 + 2 * number / (len(_CHORD) - 1))  # constant power, 1/8 to 3/8 of a half turn
        sound[begin:] += note[:, None] * [math.cos(place), math.sin(place)]
    loudest: np.ndarray = 0.7 * sound / np.abs(sound).max()
    return loudest


def pluck(frequency: float, length: int, seed: int) -> np.ndarray:
    """A plucked string `[length]`: noise that loses its edges each time it goes round (Karplus and Strong, 1983)."""
    period = round(PROMPT_RATE / frequency)
    string = np.random.default_rng(seed).uniform(-1, 1, period)
    rounds = []
    for _ in range(-(-length // period)):
        rounds.append(string)
        string = 0.498 * (string + np.roll(string, 1))
    return np.concatenate(rounds)[:length]
