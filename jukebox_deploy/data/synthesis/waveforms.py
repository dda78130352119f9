"""Building blocks of all sounds: periodic waves without aliasing, and envelopes without clicks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

HIGHEST = 0.45
"""Highest frequency of any partial, as a fraction of the sample rate."""

_TABLE = 4096  # length of the wavetable of one period
_HIGHEST_HARMONIC = 80


def harmonics_below(frequency: float, rate: int) -> npt.NDArray[np.int64]:
    """Return the numbers 1, 2, ... of the harmonics of a frequency that are low enough to be used `[count]`."""
    count = min(int(HIGHEST * rate / frequency), _HIGHEST_HARMONIC)
    return np.arange(1, max(count, 1) + 1)


def wave(amplitudes: npt.NDArray[np.float64], phase: Samples) -> Samples:
    """Synthesize a sum of sines `[samples]` with peak 1.

    Args:
        amplitudes: of the harmonics 1, 2, ... `[harmonics]`
        phase: of the fundamental, in periods `[samples]`
    """
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex128)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes
    period = np.fft.irfft(spectrum)
    period /= np.abs(period).max()
    place = phase % 1.0 * _TABLE
    index = np.minimum(place.astype(np.int64), _TABLE - 1)
    slope = np.roll(period, -1) - period
    samples: Samples = period[index] + (place - index) * slope[index]
    return samples


def times(seconds: float, rate: int) -> Samples:
    """Return the time of each sample, in seconds `[samples]`."""
    return np.arange(max(round(seconds * rate), 1)) / rate


def phase_of(frequencies: Samples, rate: int) -> Samples:
    """Return the phase of a wave of varying frequency, in periods `[samples]`; 0 at the first sample."""
    return (np.cumsum(frequencies) - frequencies[0]) / rate


def rise(count: int) -> Samples:
    """Return half a cosine from 0 to just below 1 `[count]`."""
    return 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count, 1))


def faded(samples: Samples, attack: float, release: float, rate: int) -> Samples:
    """Fade samples in from zero and out to zero; times are in seconds."""
    shaped = samples.copy()
    first, last = (min(max(round(seconds * rate), 1), len(samples)) for seconds in (attack, release))
    shaped[:first] *= rise(first)
    shaped[-last:] *= rise(last)[::-1]
    return shaped


def peak_one(samples: Samples) -> Samples:
    """Scale samples to peak 1; silence stays silence."""
    peak = np.abs(samples).max(initial=0.0)
    return samples / peak if peak > 0 else samples
