"""Scales, and conversions between degrees, pitches and frequencies."""

from __future__ import annotations

from dataclasses import dataclass

OCTAVE = 12
"""Semitones."""

PITCH_CLASSES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
"""Names of the pitches of an octave; MIDI pitch 60 is a C."""

CONCERT_PITCH = 440.0
"""Frequency of MIDI pitch 69, in hertz."""


@dataclass(frozen=True)
class Scale:
    """A scale: semitones above the tonic. Degree 0 is the tonic; degrees continue over all octaves, up and down."""

    name: str
    steps: tuple[int, ...]

    def pitch(self, tonic: int, degree: int) -> int:
        """Return the MIDI pitch of a degree, for a tonic given as MIDI pitch."""
        octave, step = divmod(degree, len(self.steps))
        return tonic + OCTAVE * octave + self.steps[step]

    def pitch_classes(self, tonic: int) -> tuple[int, ...]:
        """Return the pitch classes of the scale, 0 to 11 in ascending order, where C is 0."""
        return tuple(sorted((tonic + step) % OCTAVE for step in self.steps))

    def triad(self, root: int) -> tuple[int, int, int]:
        """Return the degrees of the triad on a root: every other degree of the scale."""
        return root, root + 2, root + 4


MAJOR = Scale("major", (0, 2, 4, 5, 7, 9, 11))
MINOR = Scale("natural minor", (0, 2, 3, 5, 7, 8, 10))
DORIAN = Scale("dorian", (0, 2, 3, 5, 7, 9, 10))
PHRYGIAN_DOMINANT = Scale("phrygian dominant", (0, 1, 4, 5, 7, 8, 10))
MAJOR_PENTATONIC = Scale("major pentatonic", (0, 2, 4, 7, 9))
BLUES = Scale("blues", (0, 3, 5, 6, 7, 10))


def frequency(pitch: float) -> float:
    """Return the frequency in hertz of a MIDI pitch in equal temperament."""
    return CONCERT_PITCH * 2.0 ** ((pitch - 69) / OCTAVE)


def folded(pitch: int, lowest: int) -> int:
    """Return the pitch of the same pitch class in the octave that begins with `lowest`."""
    return lowest + (pitch - lowest) % OCTAVE
