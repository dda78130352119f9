"""Songs of one section, to test with in no time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.composition import compose_outline
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.score import SectionKind, Song

RATE = 16_000


def short_song(number: int, artist: str = "", genre: str = "", form=(SectionKind.REFRAIN,)) -> Song:
    """Song `number` of seed 3, its form replaced, and if named its artist and genre."""
    plan = outline(3, number)
    plan = replace(plan, form=form, artist=ARTISTS.get(artist, plan.artist))
    if genre:
        chosen = GENRES[genre]
        plan = replace(plan, genre=chosen, tempo=chosen.tempo[number % 2], tonic=chosen.tonics[number // 2 % 2])
    return compose_outline(plan)


def band_levels(samples: np.ndarray, rate: int = RATE, bands: int = 16) -> np.ndarray:
    """Mean and spread over time of the level in bands on a logarithmic axis, in decibels `[2 * bands]`."""
    window = 1024
    frames = samples[: len(samples) // window * window].reshape(-1, window) * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.geomspace(80, rate / 2, bands + 1)
    band = np.searchsorted(edges, np.fft.rfftfreq(window, 1 / rate)) - 1
    energy = np.stack([power[:, band == b].sum(axis=1) for b in range(bands)], axis=1)
    levels = 10 * np.log10(energy + 1e-6 * energy.mean() + 1e-12)
    return np.concatenate([levels.mean(axis=0), levels.std(axis=0)])
