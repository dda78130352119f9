"""Features of a piece of sound: levels of frequency bands and energies of pitch classes.

Both are independent of loudness. Window lengths are fixed in seconds, so that sounds with different sample rates are
comparable within their common bandwidth.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.synthesis.scales import CONCERT_PITCH, OCTAVE
from jukebox_deploy.errors import AudioError

Numbers = npt.NDArray[np.float64]

BANDS = 16
"""Number of bands of `band_levels`."""

SHORTEST_SECONDS = 0.512
"""Shortest sound in which pitches can be resolved: semitones from 100 Hz up are at least six hertz apart."""

PITCH_FLOOR = -30.0
"""Level in decibels, relative to the total, below which a pitch class counts as silent."""

_BAND_SECONDS = 0.064
_LOWEST_BAND = 80.0  # hertz
_PITCHED = (100.0, 700.0)  # hertz: above them most energy is overtones
_SILENCE = 1e-12  # energy


def band_levels(samples: npt.NDArray[np.floating], rate: int) -> Numbers:
    """Return mean and spread over time of the levels in logarithmic frequency bands, in decibels `[2 * BANDS]`.

    The means are relative to their average over the bands. Raises `AudioError` for a sound shorter than
    `SHORTEST_SECONDS`.
    """
    power, hertz = _power_spectra(samples, rate, _BAND_SECONDS)
    edges = np.geomspace(_LOWEST_BAND, rate / 2, BANDS + 1)
    band = np.searchsorted(edges, hertz) - 1
    energy = np.stack([power[:, band == b].sum(axis=1) for b in range(BANDS)], axis=1)
    levels = 10 * np.log10(energy + 1e-6 * energy.mean() + _SILENCE)
    means = levels.mean(axis=0)
    return np.concatenate([means - means.mean(), levels.std(axis=0)])


def pitch_class_energies(samples: npt.NDArray[np.floating], rate: int) -> Numbers:
    """Return shares of the pitch classes, C first, of the energy from 100 to 700 Hz `[12]`; equal for silence.

    Raises `AudioError` for a sound of less than `SHORTEST_SECONDS`.
    """
    power, hertz = _power_spectra(samples, rate, SHORTEST_SECONDS)
    heard = (hertz > _PITCHED[0]) & (hertz < _PITCHED[1])
    pitches = np.round(69 + OCTAVE * np.log2(hertz[heard] / CONCERT_PITCH)).astype(int) % OCTAVE
    energies = np.bincount(pitches, power[:, heard].sum(axis=0), OCTAVE) + _SILENCE
    shares: Numbers = energies / energies.sum()
    return shares


def pitch_class_levels(energies: Numbers) -> Numbers:
    """Convert shares `[..., 12]` of pitch classes to decibels, not below `PITCH_FLOOR`.

    For distinguishing scales: missing notes are as characteristic as loud ones, and hardly show in shares.
    """
    levels: Numbers = 10 * np.log10(energies + 10 ** (PITCH_FLOOR / 10))
    return levels


def _power_spectra(samples: npt.NDArray[np.floating], rate: int, window_seconds: float) -> tuple[Numbers, Numbers]:
    """Return the power of adjacent windows `[windows, bins]`, and the frequencies of the bins in hertz `[bins]`."""
    if len(samples) < round(SHORTEST_SECONDS * rate):
        raise AudioError(
            f"a sound of {len(samples) / rate:.3g} s is too short to be judged; give at least {SHORTEST_SECONDS} s."
        )
    window = round(window_seconds * rate)
    frames = samples[: len(samples) // window * window].reshape(-1, window) * np.hanning(window)
    return np.abs(np.fft.rfft(frames)) ** 2, np.fft.rfftfreq(window, 1 / rate).astype(np.float64)
