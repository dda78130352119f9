"""Accompaniment of a tune: chords, bass and drums."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jukebox_deploy.data.synthesis.genres import Genre, Rhythm
from jukebox_deploy.data.synthesis.scales import folded
from jukebox_deploy.data.synthesis.score import Drum, Hit, Note, Part

LOWEST_CHORD_TONE = 52
LOWEST_BASS_NOTE = 33
_ACCENT, _WEAK = 1.0, 0.7


def swung(beat: float, offbeat: float) -> float:
    """Apply swing to a time in beats: move the middle of each beat to `offbeat`."""
    whole = math.floor(beat)
    part = beat - whole
    return whole + (part * 2 * offbeat if part <= 0.5 else 1 - (1 - part) * 2 * (1 - offbeat))


def accompany(
    genre: Genre, rhythm: Rhythm, tonic: int, chords: Sequence[int]
) -> tuple[tuple[Note, ...], tuple[Hit, ...]]:
    """Compose the notes and hits for one bar per chord; chords are degrees of the scale."""
    end = len(chords) * genre.beats_per_bar
    notes: list[Note] = []
    hits: list[Hit] = []
    for bar, root in enumerate(chords):
        pitches = [genre.scale.pitch(tonic, degree) for degree in genre.scale.triad(root)]
        notes += _bar_of_notes(genre, rhythm, pitches, bar * genre.beats_per_bar)
        hits += _bar_of_hits(genre, rhythm, bar * genre.beats_per_bar)
    return tuple(replace(note, length=min(note.length, end - note.start)) for note in notes), tuple(hits)


def _bar_of_notes(genre: Genre, rhythm: Rhythm, pitches: Sequence[int], begin: int) -> Iterator[Note]:
    chord = [folded(pitch, LOWEST_CHORD_TONE) for pitch in pitches]
    for stroke in rhythm.chords:
        start, length = _times(begin + stroke.beat, stroke.length, genre.offbeat)
        for pitch in [chord[stroke.tone]] if rhythm.broken else sorted(chord):
            yield Note(Part.CHORDS, start, length, pitch, _loudness(stroke.beat))
    for stroke in rhythm.bass:
        start, length = _times(begin + stroke.beat, stroke.length, genre.offbeat)
        pitch = folded(pitches[stroke.tone], LOWEST_BASS_NOTE)
        yield Note(Part.BASS, start, length, pitch, _loudness(stroke.beat))


def _bar_of_hits(genre: Genre, rhythm: Rhythm, begin: int) -> Iterator[Hit]:
    for drum, beats in ((Drum.KICK, rhythm.kick), (Drum.SNARE, rhythm.snare), (Drum.HAT, rhythm.hat)):
        for beat in beats:
            yield Hit(drum, swung(begin + beat, genre.offbeat), _loudness(beat))


def _times(start: float, length: float, offbeat: float) -> tuple[float, float]:
    begin = swung(start, offbeat)
    return begin, swung(start + length, offbeat) - begin


def _loudness(beat: float) -> float:
    return _ACCENT if beat % 1 == 0 else _WEAK
