"""Songs whose codes tell where they are, for the tests of caches and windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jukebox_deploy.data.catalogue import Catalogue, CatalogueFilters, read_catalogue
from jukebox_deploy.data.code_cache import CodeCache
from tests.data.song_folders import RAMP_STEP, ramp, write_sound
from tests.runtime.song_cases import RATE, VQVAE

SECOND_SONG = 10_000
"""What is added to the codes of every second song."""


def ramp_songs(folder: Path, *lengths: int) -> Catalogue:
    """Songs of ramps at the VQ-VAE's rate; a file of another name or length may lie there already."""
    for number, length in enumerate(lengths):
        write_sound(folder / f"{number}.wav", ramp(length) * (-1) ** number, RATE)
    return read_catalogue(folder, CatalogueFilters(min_seconds=0, silence_decibel=None))


def cache_in(folder: Path, fingerprint: str = "weights") -> CodeCache:
    """An empty cache for the VQ-VAE of the runtime's tests."""
    return CodeCache(folder, fingerprint, VQVAE.hop_lengths, RATE)


def place_codes(audio: np.ndarray, level: int) -> np.ndarray:
    """An encoder of ramps: code `i` of a level is `i`, in every second song more."""
    first = audio[:: VQVAE.hop_length(level)]
    places = (np.round(np.abs(first) / RAMP_STEP).astype(np.int64) - 1) // VQVAE.hop_length(level)
    return places + (SECOND_SONG if first[0] < 0 else 0)
