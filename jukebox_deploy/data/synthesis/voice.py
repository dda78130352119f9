"""Singing voice: for each sound, a glottal pulse is filtered by formants, and noise is added (Klatt, 1980)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.dice import Dice
from jukebox_deploy.data.synthesis.drums import banded
from jukebox_deploy.data.synthesis.voice_sounds import SOUNDS, Manner, Sound
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

_BANDWIDTHS = (70.0, 90.0, 130.0, 200.0)  # of the formants, hertz
_CROSSFADE = 0.02  # seconds from one sound to the next
_MOST_CONSONANTS = 0.55  # maximum share of a syllable
_FIRST_OF_TWO_VOWELS = 0.65  # share of a glide
_BURST = 0.018  # seconds, of a plosive
_VIBRATO_BEGINS = 0.25  # seconds


@dataclass(frozen=True)
class Singer:
    """One voice."""

    lowest: int  # MIDI pitch; the tonic lies in the octave above it
    tract: float = 1.0  # factor of the formants' frequencies; above 1 for a shorter vocal tract
    vibrato: float = 20.0  # cents to either side
    vibrato_hertz: float = 5.5
    breath: float = 0.02  # level of the noise in the pulse
    tilt: float = 0.8  # the k-th harmonic of the pulse has amplitude 1 / k**tilt

    def sing(self, sounds: Sequence[str], hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize one syllable on one note with a peak of at most 1 `[samples]`."""
        count = len(times(seconds, rate))
        pulse = self._pulse(hertz, seconds, rate, dice)
        mixed = np.zeros(count)
        for sound, start, stop in _timed([SOUNDS[name] for name in sounds], seconds):
            begin, end = round(start * rate), round(stop * rate)
            _add(mixed, self._voiced(sound, pulse, begin, end, rate))
            _add(mixed, _noise_of(sound, begin, end, rate, dice))
        return faded(mixed / max(np.abs(mixed).max(), 1.0), 0.01, 0.03, rate)

    def _pulse(self, hertz: float, seconds: float, rate: int, dice: Dice) -> Samples:
        """Synthesize the sound of the vocal folds: all harmonics in phase, with vibrato and breath."""
        time = times(seconds, rate)
        depth = self.vibrato * np.clip((time - _VIBRATO_BEGINS) / _VIBRATO_BEGINS, 0, 1)
        cents = depth * np.sin(2 * np.pi * self.vibrato_hertz * time)
        amplitudes = harmonics_below(hertz, rate).astype(np.float64) ** -self.tilt
        tone = wave(amplitudes, phase_of(hertz * 2 ** (cents / 1200), rate))
        return tone + self.breath * dice.noise(len(tone))

    def _voiced(self, sound: Sound, pulse: Samples, begin: int, end: int, rate: int) -> _Placed:
        """Filter the pulse by the formants of a sound; its fades overlap with the neighbouring sounds."""
        from scipy.signal import sosfilt

        if not sound.formants or sound.voiced == 0:
            return _Placed(begin, np.zeros(0))
        overlap = round(_CROSSFADE * rate / 2)
        first, last = max(begin - overlap, 0), min(end + overlap, len(pulse))
        tone = peak_one(sosfilt(formant_filter(sound.formants, self.tract, rate), pulse[first:last]))
        return _Placed(first, sound.voiced * faded(tone, _CROSSFADE, _CROSSFADE, rate))


@dataclass(frozen=True)
class _Placed:
    """Samples and their start."""

    start: int
    samples: Samples


def formant_filter(formants: Sequence[float], tract: float, rate: int) -> npt.NDArray[np.float64]:
    """Return resonators in series as second-order sections `[formants, 6]`, with gain 1 at 0 Hz."""
    pairs = zip(formants, _BANDWIDTHS, strict=True)
    rows = [_resonator(hertz * tract, width, rate) for hertz, width in pairs if hertz * tract < HIGHEST * rate]
    return np.array(rows)


def _resonator(hertz: float, width: float, rate: int) -> list[float]:
    radius = np.exp(-np.pi * width / rate)
    first, second = -2 * radius * np.cos(2 * np.pi * hertz / rate), radius**2
    return [1 + first + second, 0.0, 0.0, 1.0, first, second]


def _timed(sounds: Sequence[Sound], seconds: float) -> Iterator[tuple[Sound, float, float]]:
    """Yield each sound with its start and end in seconds.

    Consonants have their own lengths, reduced if they would take too much of the syllable; vowels share the rest.
    """
    spoken = sum(sound.seconds for sound in sounds)
    scale = min(1.0, _MOST_CONSONANTS * seconds / spoken) if spoken else 1.0
    left = seconds - scale * spoken
    vowels = sum(sound.manner is Manner.VOWEL for sound in sounds)
    shares = iter([_FIRST_OF_TWO_VOWELS, 1 - _FIRST_OF_TWO_VOWELS] if vowels == 2 else [1.0])
    start = 0.0
    for sound in sounds:
        length = left * next(shares) if sound.manner is Manner.VOWEL else scale * sound.seconds
        yield sound, start, start + length
        start += length


def _noise_of(sound: Sound, begin: int, end: int, rate: int, dice: Dice) -> _Placed:
    """Synthesize the noise of a consonant: throughout a fricative, at the end of a plosive."""
    if sound.noise == 0:
        return _Placed(begin, np.zeros(0))
    if sound.manner is Manner.PLOSIVE:
        begin = max(begin, end - round(_BURST * rate))
    samples = banded(dice.noise(max(end - begin, 1)), sound.band, rate)
    attack = 0.001 if sound.manner is Manner.PLOSIVE else 0.02
    return _Placed(begin, sound.noise * faded(samples, attack, 0.012, rate))


def _add(mixed: Samples, placed: _Placed) -> None:
    samples = placed.samples[: len(mixed) - placed.start]
    mixed[placed.start : placed.start + len(samples)] += samples
