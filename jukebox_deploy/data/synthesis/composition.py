"""Composition of a score from an outline: the words, tunes and accompaniment of every section."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.synthesis.accompaniment import accompany, swung
from jukebox_deploy.data.synthesis.genres import Genre, Rhythm
from jukebox_deploy.data.synthesis.lyrics import Line, compose_line
from jukebox_deploy.data.synthesis.melody import Tone, compose_tune
from jukebox_deploy.data.synthesis.outline import BARS_PER_LINE, Outline, outline
from jukebox_deploy.data.synthesis.scales import folded
from jukebox_deploy.data.synthesis.score import Arrangement, Hit, Note, Part, Section, SectionKind, Song, Syllable

_SYLLABLES_PER_LINE = (6, 9)
_LOWEST_LEAD_TONIC = 64
_GAP = 0.05  # beats between two notes of the lead


@dataclass(frozen=True)
class Strophe:
    """Material that all verses, or all refrains, share: chords, their rhythm, and a tune for each line."""

    progression: tuple[int, ...]
    rhythm: Rhythm
    tunes: tuple[tuple[Tone, ...], ...]

    def chords(self, bars: int) -> tuple[int, ...]:
        """Return the chords of that many bars."""
        return tuple(self.progression[bar % len(self.progression)] for bar in range(bars))


@dataclass(frozen=True)
class Material:
    """Material that the sections of a song are made from."""

    verse: Strophe
    refrain: Strophe
    refrain_lines: tuple[Line, ...]


def compose(seed: int, number: int, grid: float = 0.0, arrangement: Arrangement = Arrangement.FULL) -> Song:
    """Compose song `number` of a seed; see `outline` for the grid and the arrangement."""
    return compose_outline(outline(seed, number, grid, arrangement))


def compose_outline(plan: Outline) -> Song:
    """Compose the song of an outline; the same outline gives the same song."""
    dice = Dice(plan.seed, Stream.MUSIC, plan.number)
    material = _material(plan, dice)
    sections = tuple(_section(kind, plan, material, dice) for kind in plan.form)
    return Song(
        plan.seed,
        plan.number,
        plan.artist.name,
        plan.genre.name,
        plan.tempo,
        plan.tonic,
        plan.genre.scale,
        sections,
        plan.grid,
        plan.arrangement,
    )


def _material(plan: Outline, dice: Dice) -> Material:
    verse_chords, refrain_chords = dice.shuffled(plan.genre.progressions)[:2]
    rhythms = [dice.choice(plan.genre.rhythms) for _ in range(2)]
    verse = _strophe(plan, verse_chords, rhythms[0], dice)
    refrain = _strophe(plan, refrain_chords, rhythms[1], dice)
    return Material(verse, refrain, _lines(refrain, dice))


def _strophe(plan: Outline, progression: tuple[int, ...], rhythm: Rhythm, dice: Dice) -> Strophe:
    """Compose a strophe; the third line has the tune of the first: A B, or A B A C."""
    strophe = Strophe(progression, rhythm, ())
    chords = strophe.chords(BARS_PER_LINE * plan.lines)
    tunes: list[tuple[Tone, ...]] = []
    for line in range(plan.lines):
        bars = chords[BARS_PER_LINE * line : BARS_PER_LINE * (line + 1)]
        count = dice.whole(*_SYLLABLES_PER_LINE)
        tune = compose_tune(count, bars, plan.genre.beats_per_bar, plan.genre.scale, dice)
        tunes.append(tunes[0] if line == 2 else tune)
    return Strophe(progression, rhythm, tuple(tunes))


def _lines(strophe: Strophe, dice: Dice) -> tuple[Line, ...]:
    return tuple(compose_line(len(tune), dice) for tune in strophe.tunes)


def _section(kind: SectionKind, plan: Outline, material: Material, dice: Dice) -> Section:
    strophe = material.verse if kind is SectionKind.VERSE else material.refrain
    bars = plan.bars(kind)
    notes, hits = _accompaniment(plan, strophe, bars)
    syllables: tuple[Syllable, ...] = ()
    sung = _sung_lines(kind, plan)
    if sung:
        lines = material.refrain_lines if kind is SectionKind.REFRAIN else _lines(strophe, dice)
        syllables = tuple(_sung(strophe.tunes, lines, sung, plan))
    played = [line for line in range(bars // BARS_PER_LINE) if line not in sung]
    notes += tuple(_played(strophe.tunes, played, plan))
    return Section(kind, bars * plan.genre.beats_per_bar, notes, hits, syllables)


def _sung_lines(kind: SectionKind, plan: Outline) -> range:
    """Return the numbers of the lines that the voice sings; the lead plays the others."""
    if kind not in (SectionKind.VERSE, SectionKind.REFRAIN):
        return range(0)
    return range(0, plan.lines, 2 if plan.arrangement is Arrangement.ANSWERED else 1)


def _accompaniment(plan: Outline, strophe: Strophe, bars: int) -> tuple[tuple[Note, ...], tuple[Hit, ...]]:
    if plan.arrangement is not Arrangement.FULL:
        return (), ()
    return accompany(plan.genre, strophe.rhythm, plan.tonic, strophe.chords(bars))


def _played(tunes: Sequence[tuple[Tone, ...]], lines: Iterable[int], plan: Outline) -> Iterator[Note]:
    answers = plan.arrangement is Arrangement.ANSWERED
    tonic = folded(plan.tonic, plan.artist.singer.lowest if answers else _LOWEST_LEAD_TONIC)
    for tone, start, length in _placed(tunes, lines, plan.genre):
        yield Note(Part.LEAD, start, length - _GAP, plan.genre.scale.pitch(tonic, tone.degree))


def _sung(
    tunes: Sequence[tuple[Tone, ...]], words: Sequence[Line], lines: Sequence[int], plan: Outline
) -> Iterator[Syllable]:
    tonic = folded(plan.tonic, plan.artist.singer.lowest)
    placed, spelt = _placed(tunes, lines, plan.genre), _spelt([words[line] for line in lines])
    for (tone, start, length), (text, after, sounds) in zip(placed, spelt, strict=True):
        yield Syllable(start, length, plan.genre.scale.pitch(tonic, tone.degree), text, after, sounds)


def _placed(
    tunes: Sequence[tuple[Tone, ...]], lines: Iterable[int], genre: Genre
) -> Iterator[tuple[Tone, float, float]]:
    """Yield the tones of these lines with their start in the section and their length, in beats."""
    for line in lines:
        begin = line * BARS_PER_LINE * genre.beats_per_bar
        for tone in tunes[line]:
            start = swung(begin + tone.start, genre.offbeat)
            yield tone, start, swung(begin + tone.start + tone.length, genre.offbeat) - start


def _spelt(lines: Sequence[Line]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield, for every syllable, its text, the separator after it, and its sounds."""
    for number, line in enumerate(lines, start=1):
        for place, word in enumerate(line, start=1):
            for position, syllable in enumerate(word.syllables, start=1):
                ends_line = "\n\n" if number == len(lines) else "\n"
                ends_word = ends_line if place == len(line) else " "
                yield syllable.text, ends_word if position == len(word.syllables) else "", syllable.sounds
