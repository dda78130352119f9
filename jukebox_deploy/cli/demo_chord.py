"""A plucked chord as a prompt, for models that have no prompt of their own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from jukebox_deploy.files import atomic_path

PROMPT_RATE = 22_050
"""Sample rate of the prompt; deliberately not that of a model, so that it has to be resampled."""

_CHORD = (196.0, 246.94, 293.66, 369.99, 440.0, 369.99, 293.66, 246.94)  # G major seven, in hertz
_NOTE_SECONDS = 0.2


def write_chord(path: Path) -> None:
    """Write a broken chord as stereo FLAC."""
    import soundfile

    with atomic_path(path) as partial:
        soundfile.write(partial, broken_chord(), PROMPT_RATE, format="FLAC")


def broken_chord() -> np.ndarray:
    """Return plucked strings that start one after the other, panned from left to right, float64 `[samples, 2]`."""
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
    """Return a plucked string `[length]`: noise, smoothed in every period (Karplus and Strong, 1983)."""
    period = round(PROMPT_RATE / frequency)
    string = np.random.default_rng(seed).uniform(-1, 1, period)
    rounds = []
    for _ in range(-(-length // period)):
        rounds.append(string)
        string = 0.498 * (string + np.roll(string, 1))
    return np.concatenate(rounds)[:length]
