"""Drum kits made of shaped noise and sines of falling frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jukebox_deploy.data.dice import Dice
from jukebox_deploy.data.synthesis.score import Drum
from jukebox_deploy.data.synthesis.waveforms import HIGHEST, Samples, faded, peak_one, times

_LENGTH = {Drum.KICK: 0.3, Drum.SNARE: 0.22, Drum.HAT: 0.08}  # seconds
_NOISE_BAND = {Drum.SNARE: (1200.0, 8000.0), Drum.HAT: (6000.0, 16000.0)}  # hertz
_SNARE_HERTZ = 185.0  # of its body
_RELEASE = 0.02  # seconds
_CHIP_LEVELS = 4  # amplitude levels of a chip's noise on either side of zero


@dataclass(frozen=True)
class DrumKit:
    """A drum kit."""

    kick_hertz: float = 50.0
    snare_tone: float = 0.4  # share of the body, a sine, in the sound of the snare
    length: float = 1.0  # factor of the usual length of all sounds
    chip: bool = False  # noise like that of sound chips: few levels, each held for some samples

    def sound(self, drum: Drum, rate: int, dice: Dice) -> Samples:
        """Synthesize one hit with peak 1 `[samples]`."""
        time = times(_LENGTH[drum] * self.length, rate)
        decay = np.exp(-6 * time / time[-1]) if len(time) > 1 else np.ones(1)
        if drum is Drum.KICK:
            sound = decay * np.sin(2 * np.pi * self._kick_phase(time))
        else:
            sound = decay * self._noise(drum, len(time), rate, dice)
        if drum is Drum.SNARE:
            body = self.snare_tone * decay**2 * np.sin(2 * np.pi * _SNARE_HERTZ * time)
            sound = (1 - self.snare_tone) * peak_one(sound) + body
        return faded(peak_one(sound), 0.001, _RELEASE, rate)

    def _kick_phase(self, time: Samples) -> Samples:
        """Return the phase, in periods, of a sine whose frequency falls from four times the final one."""
        fall = 0.03  # seconds to 1/e
        return self.kick_hertz * (time + 3 * fall * (1 - np.exp(-time / fall)))

    def _noise(self, drum: Drum, count: int, rate: int, dice: Dice) -> Samples:
        if self.chip:
            held = max(round(rate / (22_050 if drum is Drum.HAT else 5_500)), 1)
            levels = np.round(dice.noise(count // held + 1) * _CHIP_LEVELS) / _CHIP_LEVELS
            return np.repeat(levels, held)[:count]
        return banded(dice.noise(count), _NOISE_BAND[drum], rate)


def banded(noise: Samples, band: tuple[float, float], rate: int) -> Samples:
    """Band-pass noise between two frequencies in hertz, limited by the sample rate, and normalise it to peak 1."""
    from scipy.signal import butter, sosfilt

    top = min(band[1], HIGHEST * rate)
    bottom = min(band[0], top / 2)
    return peak_one(sosfilt(butter(2, (bottom, top), "bandpass", fs=rate, output="sos"), noise))
