"""What the demonstration is made of: what to begin with, names, a few lines to sing."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jukebox_deploy.files import atomic_path

PROMPT_RATE = 22_050
"""Half the model's rate: the prompt has to be resampled."""


@dataclass(frozen=True)
class Material:
    """What the songs of a demonstration are asked for."""

    seconds: float
    prompt_seconds: float
    artist: str
    genre: str
    lyrics: str
    prompt: Path | None = None  # a sound file; default: a plucked chord
    total_seconds: float | None = None  # how long the model is told a song is

    def write(self, folder: Path) -> None:
        """Write the prompt and the lyrics as files."""
        (folder / "lyrics.txt").write_text(self.lyrics, encoding="utf-8")
        if self.prompt is None:
            write_chord(folder / "prompt.flac")
        else:
            shutil.copyfile(self.prompt, folder / "prompt.flac")


UNTRAINED = Material(
    seconds=3.0,
    prompt_seconds=1.5,
    artist="the tin foxes",
    genre="folk",
    lyrics="""Slow water over old stones,
a light on the other side,
and all of the hills are humming
the song of the turning tide.""",
)
"""For `tiny` with random weights, whose names are made up."""

UNTRAINED_ARTISTS = {n: i for i, n in enumerate(("unknown", "the tin foxes", "glass harbour", "paper lanterns"))}
UNTRAINED_GENRES = {n: i for i, n in enumerate(("unknown", "folk", "jazz", "ambient", "polka"))}


def trained_material(bundle: Path) -> Material:
    """For a model that has learnt from `data synthesize`; it may bring a `prompt.flac`."""
    prompt = bundle / "prompt.flac"
    return Material(
        seconds=8.0,
        prompt_seconds=1.5,
        artist="organ valley",
        genre="lullaby",
        lyrics="""river, take me over the water,
slowly into the golden night.
sing to me, sing to me, silver moon,
carry the morning light.""",
        prompt=prompt if prompt.exists() else None,
        total_seconds=60.0,
    )


_CHORD = (196.0, 246.94, 293.66, 369.99, 440.0, 369.99, 293.66, 246.94)  # G major seven, in hertz
_NOTE_SECONDS = 0.2


def write_id_lists(folder: Path, artists: Mapping[str, int], genres: Mapping[str, int]) -> None:
    """Write names as `v3_artist_ids.txt` and `v3_genre_ids.txt`, one `name;id` per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, names in (("artist", artists), ("genre", genres)):
        lines = [f"{name};{number}\n" for name, number in names.items()]
        (folder / f"v3_{kind}_ids.txt").write_text("".join(lines), encoding="utf-8")


def write_chord(path: Path) -> None:
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
