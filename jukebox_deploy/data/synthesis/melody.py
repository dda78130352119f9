"""Tunes: the times at which the syllables of a line are sung, and their degrees of the scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jukebox_deploy.data.dice import Dice
from jukebox_deploy.data.synthesis.scales import Scale

STEP = 0.5
"""Beats between two positions at which a syllable may begin."""

_BREATH = 1.0  # beats at the end of a line during which no syllable begins
_LONGEST = 2.0  # beats
_LEAPS = (-2, -1, -1, 0, 1, 1, 2)  # degrees from one note to the next


@dataclass(frozen=True)
class Tone:
    """One note of a tune, with its pitch as a degree of the scale."""

    start: float  # beats from the line's beginning
    length: float  # beats
    degree: int


@dataclass(frozen=True)
class Range:
    """Range of the degrees of a tune."""

    lowest: int
    highest: int

    @classmethod
    def of(cls, scale: Scale) -> Range:
        """Return the range from the degree below the tonic to the degree above its octave."""
        return cls(-1, len(scale.steps) + 1)

    def clip(self, degree: int) -> int:
        """Return the nearest degree within the range."""
        return min(max(degree, self.lowest), self.highest)


def compose_tune(count: int, chords: Sequence[int], beats_per_bar: int, scale: Scale, dice: Dice) -> tuple[Tone, ...]:
    """Compose a tune of `count` notes over one bar per chord; a chord is the degree of its root.

    Notes on a beat are tones of the chord, notes between beats move in small intervals, and the last note is a tone of
    the last chord.
    """
    beats = len(chords) * beats_per_bar
    starts = _starts(count, beats, beats_per_bar, dice)
    ends = [*starts[1:], beats - STEP]
    inside = Range.of(scale)
    degree, tones = dice.whole(0, len(scale.steps) - 1), []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        degree = inside.clip(degree + dice.choice(_LEAPS))
        if start % 1 == 0 or place == count - 1:
            degree = _nearest_chord_tone(degree, chords[int(start // beats_per_bar)], scale, inside)
        tones.append(Tone(start, min(end - start, _LONGEST), degree))
    return tuple(tones)


def most_notes(beats: int) -> int:
    """Return the largest number of notes that fit into a line of that many beats."""
    return round((beats - _BREATH) / STEP)


def _starts(count: int, beats: int, beats_per_bar: int, dice: Dice) -> list[float]:
    """Choose the beats at which notes begin, in order: always the first one, then mostly strong positions."""
    places = [STEP * n for n in range(most_notes(beats))]

    def weight(place: float) -> float:
        strength = 3.0 if place % beats_per_bar == 0 else 2.0 if place % 1 == 0 else 1.0
        return strength + 2.5 * dice.uniform() + (10.0 if place == 0 else 0.0)

    return sorted(sorted(places, key=weight, reverse=True)[:count])


def _nearest_chord_tone(degree: int, root: int, scale: Scale, inside: Range) -> int:
    size = len(scale.steps)
    classes = {tone % size for tone in scale.triad(root)}
    tones = [tone for tone in range(inside.lowest, inside.highest + 1) if tone % size in classes]
    return min(tones, key=lambda tone: (abs(tone - degree), tone))
