"""Ground truth of a song as plain data: its row in the corpus's table, and the score in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jukebox_deploy.data.synthesis.scales import PITCH_CLASSES
from jukebox_deploy.data.synthesis.score import Section, Song

_DIGITS = 6
"""Decimals of times in seconds: microseconds."""


def song_row(song: Song) -> dict[str, Any]:
    """Return the labels of a song for a model, and properties for tests; times are in seconds."""
    return {
        "artist": song.artist,
        "genres": [song.genre],
        "lyrics": song.lyrics,
        "tempo": song.tempo,
        "key": PITCH_CLASSES[song.tonic],
        "scale": song.scale.name,
        "pitch_classes": list(song.scale.pitch_classes(song.tonic)),
        "sections": [
            {"kind": section.kind.value, "start": _starts(begin, song), "seconds": _seconds(section.beats, song)}
            for begin, section in _sections(song)
        ],
    }


def song_score(song: Song) -> dict[str, Any]:
    """Return all notes, hits and syllables with their times in seconds; pitches are MIDI numbers."""
    return {"notes": list(_notes(song)), "hits": list(_hits(song)), "syllables": list(_syllables(song))}


def _notes(song: Song) -> Iterator[dict[str, Any]]:
    for begin, section in _sections(song):
        for note in section.notes:
            times = _times(song, begin + note.start, note.length)
            yield {"part": note.part.value, **times, "pitch": note.pitch, "loudness": note.loudness}


def _hits(song: Song) -> Iterator[dict[str, Any]]:
    for begin, section in _sections(song):
        for hit in section.hits:
            yield {"drum": hit.drum.value, "start": _starts(begin + hit.start, song), "loudness": hit.loudness}


def _syllables(song: Song) -> Iterator[dict[str, Any]]:
    """Yield the syllables with the index of their first character in the lyrics."""
    character = 0
    for begin, section in _sections(song):
        for syllable in section.syllables:
            times = _times(song, begin + syllable.start, syllable.length)
            yield {
                "text": syllable.text,
                "character": character,
                **times,
                "pitch": syllable.pitch,
                "sounds": list(syllable.sounds),
            }
            character += len(syllable.text + syllable.after)


def _sections(song: Song) -> Iterator[tuple[int, Section]]:
    return zip(song.section_beats, song.sections, strict=True)


def _times(song: Song, start: float, length: float) -> dict[str, float]:
    return {"start": _starts(start, song), "seconds": _seconds(length, song)}


def _starts(beat: float, song: Song) -> float:
    return round(song.time_of(beat), _DIGITS)


def _seconds(beats: float, song: Song) -> float:
    return round(beats * song.beat_seconds, _DIGITS)
