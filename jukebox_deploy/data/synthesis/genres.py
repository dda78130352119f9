"""Genres: their scales, tempos, chords and rhythms."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.data.synthesis.scales import (
    BLUES,
    DORIAN,
    MAJOR,
    MAJOR_PENTATONIC,
    MINOR,
    PHRYGIAN_DOMINANT,
    Scale,
)


@dataclass(frozen=True)
class Stroke:
    """A note or chord that the accompaniment plays in every bar."""

    beat: float  # from the beginning of the bar
    length: float  # beats
    tone: int = 0  # index of the chord's tone, 0 to 2; ignored by strummed chords, which play all three


@dataclass(frozen=True)
class Rhythm:
    """One bar of the accompaniment."""

    chords: tuple[Stroke, ...]
    bass: tuple[Stroke, ...]
    kick: tuple[float, ...] = ()  # beats
    snare: tuple[float, ...] = ()
    hat: tuple[float, ...] = ()
    broken: bool = False  # chords tone by tone instead of all at once


@dataclass(frozen=True)
class Genre:
    """Properties that the songs of a genre share."""

    name: str
    scale: Scale
    tonics: tuple[int, ...]  # pitch classes, C is 0
    tempo: tuple[int, int]  # slowest and fastest, beats per minute
    beats_per_bar: int
    rhythms: tuple[Rhythm, ...]
    progressions: tuple[tuple[int, ...], ...]  # degrees of the scale, one per bar, four bars
    offbeat: float = 0.5  # position within a beat of its second half: 0.5 is straight, 2/3 is swing


def _every(step: float, beats: int) -> tuple[float, ...]:
    return tuple(step * n for n in range(round(beats / step)))


def _strum(*beats: float, length: float) -> tuple[Stroke, ...]:
    return tuple(Stroke(beat, length) for beat in beats)


def _broken(tones: tuple[int, ...], step: float, length: float) -> tuple[Stroke, ...]:
    return tuple(Stroke(step * n, length, tone) for n, tone in enumerate(tones))


BALLAD = Genre(
    "ballad",
    MAJOR,
    tonics=(0, 5),
    tempo=(64, 82),
    beats_per_bar=4,
    rhythms=(
        Rhythm(_strum(0, 2, length=1.9), (Stroke(0, 1.9), Stroke(2, 1.9, 2)), (0, 2.5), (1, 3), _every(0.5, 4)),
        Rhythm(_broken((0, 1, 2, 1, 0, 1, 2, 1), 0.5, 0.9), (Stroke(0, 3.8),), (0, 2), (3,), _every(1, 4), broken=True),
    ),
    progressions=((0, 5, 3, 4), (0, 4, 5, 3), (0, 2, 3, 4)),
)

BLUES_SHUFFLE = Genre(
    "blues",
    BLUES,
    tonics=(2, 7),
    tempo=(88, 116),
    beats_per_bar=4,
    rhythms=(
        Rhythm(
            _strum(0, 1.5, 2, 3.5, length=0.45),
            (Stroke(0, 0.9), Stroke(1, 0.9, 1), Stroke(2, 0.9, 2), Stroke(3, 0.9, 1)),
            (0, 2),
            (1, 3),
            _every(0.5, 4),
        ),
        Rhythm(_strum(1, 3, length=0.5), _broken((0, 0, 2, 2, 1, 1, 2, 2), 0.5, 0.45), (0, 2), (1, 3), _every(0.5, 4)),
    ),
    progressions=((0, 0, 2, 0), (0, 2, 0, 4), (0, 2, 4, 0)),
    offbeat=2 / 3,
)

FOLK = Genre(
    "folk",
    DORIAN,
    tonics=(5, 10),
    tempo=(100, 132),
    beats_per_bar=3,
    rhythms=(
        Rhythm(_strum(1, 2, length=0.8), (Stroke(0, 0.9),), (0,), (), (1, 2)),
        Rhythm(_broken((0, 1, 2, 1, 2, 1), 0.5, 0.6), (Stroke(0, 1.8), Stroke(2, 0.9, 2)), (0,), (2,), (), broken=True),
    ),
    progressions=((0, 6, 0, 3), (0, 3, 6, 0), (0, 2, 6, 0)),
)

DANCE = Genre(
    "dance",
    MINOR,
    tonics=(6, 11),
    tempo=(118, 134),
    beats_per_bar=4,
    rhythms=(
        Rhythm(
            _strum(0.5, 1.5, 2.5, 3.5, length=0.4),
            _broken((0, 0, 0, 0, 0, 0, 0, 2), 0.5, 0.4),
            _every(1, 4),
            (1, 3),
            (0.5, 1.5, 2.5, 3.5),
        ),
        Rhythm(
            _broken((0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 2, 1, 2), 0.25, 0.22),
            tuple(Stroke(beat, 0.4) for beat in (0.5, 1.5, 2.5, 3.5)),
            _every(1, 4),
            (1, 3),
            _every(0.5, 4),
            broken=True,
        ),
    ),
    progressions=((0, 5, 2, 6), (0, 3, 5, 6), (5, 6, 0, 0)),
)

LULLABY = Genre(
    "lullaby",
    MAJOR_PENTATONIC,
    tonics=(6, 11),
    tempo=(72, 92),
    beats_per_bar=3,
    rhythms=(
        Rhythm(_broken((0, 1, 2), 1, 1.4), (Stroke(0, 2.8),), broken=True),
        Rhythm(_broken((0, 1, 2, 1, 2, 1), 0.5, 0.9), (Stroke(0, 1.9), Stroke(2, 0.9, 2)), broken=True),
    ),
    progressions=((0, 4, 3, 0), (0, 2, 4, 0), (0, 3, 0, 4)),
)

DESERT = Genre(
    "desert",
    PHRYGIAN_DOMINANT,
    tonics=(3, 10),
    tempo=(86, 108),
    beats_per_bar=4,
    rhythms=(
        Rhythm(
            _strum(0, 1.5, 3, length=0.8),
            (Stroke(0, 1.4), Stroke(1.5, 1.4), Stroke(3, 0.9)),
            (0, 1.5),
            (1, 3),
            (0.5, 2, 2.5, 3.5),
        ),
        Rhythm(_strum(0, length=3.8), _broken((0, 2, 0, 0), 1, 0.8), (0, 2.5), (1, 2, 3.5), (), broken=False),
    ),
    progressions=((0, 1, 0, 6), (0, 3, 1, 0), (0, 0, 1, 0)),
)

GENRES = {genre.name: genre for genre in (BALLAD, BLUES_SHUFFLE, FOLK, DANCE, LULLABY, DESERT)}
"""All genres by name."""
