"""Sounds of the voice: formants of vowels and sonorants, noise bands of the other consonants.

Vowels are the averages of men from Peterson and Barney (1952), sonorants are from Klatt (1980). Frequencies are in
hertz.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Manner(StrEnum):
    """Manner of articulation."""

    VOWEL = "vowel"
    SONORANT = "sonorant"  # like a vowel, but short and softer: m, l
    FRICATIVE = "fricative"  # noise throughout the sound: s
    PLOSIVE = "plosive"  # silence, then a burst: t


@dataclass(frozen=True)
class Sound:
    """One sound of the voice."""

    manner: Manner
    formants: tuple[float, ...] = ()  # filters of the voice, if the sound is voiced
    band: tuple[float, float] = (0.0, 0.0)  # of the noise, if there is any
    seconds: float = 0.0  # length of a consonant; vowels share the rest of the syllable
    voiced: float = 1.0  # loudness of the voice
    noise: float = 0.0  # loudness of the noise


VOWELS = {
    "ah": Sound(Manner.VOWEL, (730, 1090, 2440, 3400)),  # father
    "eh": Sound(Manner.VOWEL, (530, 1840, 2480, 3500)),  # bed
    "ee": Sound(Manner.VOWEL, (270, 2290, 3010, 3600)),  # see
    "oh": Sound(Manner.VOWEL, (570, 840, 2410, 3300)),  # law
    "oo": Sound(Manner.VOWEL, (300, 870, 2240, 3300)),  # moon
    "uh": Sound(Manner.VOWEL, (490, 1350, 1690, 3300)),  # bird
}
"""The vowels, each with an example word as a comment."""

_MURMUR = (250, 1100, 2300, 3300)

_SONORANTS = {
    "m": Sound(Manner.SONORANT, (250, 1000, 2200, 3300), seconds=0.08, voiced=0.45),
    "n": Sound(Manner.SONORANT, (250, 1450, 2500, 3300), seconds=0.07, voiced=0.45),
    "ng": Sound(Manner.SONORANT, (250, 2000, 2700, 3300), seconds=0.09, voiced=0.4),
    "l": Sound(Manner.SONORANT, (330, 1050, 2800, 3300), seconds=0.06, voiced=0.6),
    "r": Sound(Manner.SONORANT, (330, 1060, 1380, 3300), seconds=0.06, voiced=0.6),
    "w": Sound(Manner.SONORANT, (290, 610, 2150, 3300), seconds=0.06, voiced=0.6),
    "y": Sound(Manner.SONORANT, (260, 2070, 3020, 3600), seconds=0.06, voiced=0.6),
}

_FRICATIVES = {
    "s": Sound(Manner.FRICATIVE, band=(4500, 9000), seconds=0.09, voiced=0.0, noise=0.35),
    "z": Sound(Manner.FRICATIVE, _MURMUR, (4500, 9000), 0.08, voiced=0.25, noise=0.25),
    "sh": Sound(Manner.FRICATIVE, band=(2200, 6000), seconds=0.09, voiced=0.0, noise=0.4),
    "f": Sound(Manner.FRICATIVE, band=(1500, 9000), seconds=0.08, voiced=0.0, noise=0.2),
    "v": Sound(Manner.FRICATIVE, _MURMUR, (1500, 9000), 0.06, voiced=0.35, noise=0.12),
    "th": Sound(Manner.FRICATIVE, _MURMUR, (1400, 8000), 0.05, voiced=0.3, noise=0.12),
    "h": Sound(Manner.FRICATIVE, band=(500, 3000), seconds=0.06, voiced=0.0, noise=0.25),
    "j": Sound(Manner.FRICATIVE, _MURMUR, (2000, 6000), 0.07, voiced=0.25, noise=0.3),
}

_PLOSIVES = {
    "p": Sound(Manner.PLOSIVE, band=(400, 1500), seconds=0.07, voiced=0.0, noise=0.5),
    "t": Sound(Manner.PLOSIVE, band=(3000, 6000), seconds=0.07, voiced=0.0, noise=0.5),
    "k": Sound(Manner.PLOSIVE, band=(1500, 3000), seconds=0.07, voiced=0.0, noise=0.5),
    "b": Sound(Manner.PLOSIVE, _MURMUR, (400, 1500), 0.06, voiced=0.2, noise=0.3),
    "d": Sound(Manner.PLOSIVE, _MURMUR, (3000, 5000), 0.06, voiced=0.2, noise=0.3),
    "g": Sound(Manner.PLOSIVE, _MURMUR, (1500, 2500), 0.06, voiced=0.2, noise=0.3),
}

SOUNDS = {**VOWELS, **_SONORANTS, **_FRICATIVES, **_PLOSIVES}
"""All sounds by the names that are used in `lyrics`."""
