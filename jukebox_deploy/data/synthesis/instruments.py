"""Pitched instruments: each synthesizes notes of a frequency and a length that begin and end at zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from jukebox_deploy.data.dice import Dice
from jukebox_deploy.data.synthesis.waveforms import (
    HIGHEST,
    Samples,
    faded,
    harmonics_below,
    peak_one,
    phase_of,
    times,
    wave,
)

_SIXTY_DECIBELS = np.log(1000.0)


class Instrument(Protocol):
    """Synthesizer of single notes."""

    def tone(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one note with a peak of at most 1 `[samples]`; its release may extend beyond its length."""
        ...


@dataclass(frozen=True)
class Pluck:
    """A plucked string: a burst of noise circulates in a low-passed delay line (Karplus and Strong, 1983)."""

    brightness: float  # 0 to 1: amount of high frequencies in the pluck
    ring: float  # seconds until the fundamental has decayed by 60 dB
    release: float = 0.08  # seconds until the string is damped after the note

    def tone(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one note `[samples]`."""
        from scipy.signal import lfilter

        count = len(times(seconds + self.release, rate))
        # The loop's period is a delay of whole samples, half a sample of the low-pass, and an interpolated remainder.
        delay, fraction = divmod(rate / hertz - 0.5, 1.0)
        taps = np.convolve([0.5, 0.5], [1 - fraction, fraction]) * 10 ** (-3 / (self.ring * hertz))
        loop = np.concatenate([[1.0], np.zeros(int(delay) - 1), -taps])
        burst = lfilter([self.brightness], [1.0, self.brightness - 1.0], dice.noise(int(delay)))
        excitation = np.zeros(count)
        length = min(len(burst), count)
        excitation[:length] = (burst - burst.mean())[:length]
        return faded(peak_one(lfilter([1.0], loop, excitation)), 0.001, self.release, rate)


@dataclass(frozen=True)
class Organ:
    """A drawbar organ: nine sines, from an octave below the note to three octaves above it."""

    drawbars: tuple[float, ...]  # loudness of 16', 5 1/3', 8', 4', 2 2/3', 2', 1 3/5', 1 1/3', 1'
    tremolo: float = 0.0  # depth: share of the loudness that is modulated
    tremolo_hertz: float = 6.0
    release: float = 0.05  # seconds

    _HARMONICS = (1, 3, 2, 4, 6, 8, 10, 12, 16)  # of the 16' pipe

    def tone(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one note `[samples]`."""
        time = times(seconds + self.release, rate)
        amplitudes = np.zeros(max(self._HARMONICS))
        for harmonic, loudness in zip(self._HARMONICS, self.drawbars, strict=True):
            if harmonic * hertz / 2 < HIGHEST * rate:
                amplitudes[harmonic - 1] = loudness
        tremolo = 1 - self.tremolo * (0.5 - 0.5 * np.cos(2 * np.pi * self.tremolo_hertz * time))
        return faded(tremolo * wave(amplitudes, time * hertz / 2), 0.012, self.release, rate)


@dataclass(frozen=True)
class Bell:
    """A bell by frequency modulation (Chowning, 1973); the modulation decays faster than the sound."""

    ratio: float  # modulating frequency / frequency of the note; a ratio that is not an integer sounds clangorous
    depth: float  # modulation index at the strike
    ring: float  # seconds until the sound has decayed by 60 dB
    release: float = 0.3  # seconds

    def tone(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one note `[samples]`."""
        time = times(seconds + self.release, rate)
        decay = np.exp(-_SIXTY_DECIBELS * time / self.ring)
        # The number of audible sidebands is about the modulation index, which is limited to those below `HIGHEST`.
        room = (HIGHEST * rate / hertz - 1) / self.ratio - 1
        depth = min(self.depth, max(room, 0.0)) * decay**3
        phase = 2 * np.pi * hertz * time
        return faded(decay * np.sin(phase + depth * np.sin(self.ratio * phase)), 0.002, self.release, rate)


class Shape(StrEnum):
    """Waveform of an oscillator."""

    SINE = "sine"
    TRIANGLE = "triangle"
    SAW = "saw"
    PULSE = "pulse"


@dataclass(frozen=True)
class Oscillator:
    """A plain waveform with an envelope, as in sound chips and synthesizers; all harmonics are below half the rate."""

    shape: Shape
    duty: float = 0.5  # of a pulse: share of the period in which it is high
    softness: float = 0.0  # the k-th harmonic is divided by k**softness
    attack: float = 0.004  # seconds
    decay: float = 60.0  # seconds until a held tone has decayed by 60 dB
    release: float = 0.03  # seconds
    vibrato: float = 0.0  # cents to either side
    vibrato_hertz: float = 5.0

    def tone(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one note `[samples]`."""
        time = times(seconds + self.release, rate)
        cents = self.vibrato * np.sin(2 * np.pi * self.vibrato_hertz * time)
        tone = wave(self._amplitudes(hertz, rate), phase_of(hertz * 2 ** (cents / 1200), rate))
        return faded(tone * np.exp(-_SIXTY_DECIBELS * time / self.decay), self.attack, self.release, rate)

    def _amplitudes(self, hertz: float, rate: int) -> Samples:
        number = harmonics_below(hertz, rate)
        match self.shape:
            case Shape.SINE:
                amplitudes = (number == 1).astype(float)
            case Shape.TRIANGLE:
                amplitudes = np.sin(np.pi * number / 2) / number**2
            case Shape.SAW:
                amplitudes = 1 / number
            case Shape.PULSE:
                amplitudes = np.sin(np.pi * number * self.duty) / number
        return amplitudes / number**self.softness
