"""Outline of a song before any note is composed: artist, genre, tempo, key and form. It determines the length."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.synthesis.artists import ARTISTS, Artist
from jukebox_deploy.data.synthesis.genres import GENRES, Genre
from jukebox_deploy.data.synthesis.score import TAIL_SECONDS, Arrangement, SectionKind

_INTRO, _VERSE, _REFRAIN, _BRIDGE, _OUTRO = SectionKind
FORMS = (
    (_INTRO, _VERSE, _REFRAIN, _VERSE, _REFRAIN, _OUTRO),
    (_INTRO, _VERSE, _REFRAIN, _BRIDGE, _REFRAIN, _OUTRO),
    (_INTRO, _REFRAIN, _VERSE, _REFRAIN, _VERSE, _REFRAIN, _OUTRO),
    (_INTRO, _VERSE, _VERSE, _REFRAIN, _BRIDGE, _VERSE, _REFRAIN, _OUTRO),
)
"""Possible forms of a song."""

BARS_PER_LINE = 2
_LONGEST_SHORT_SECTION = 8.0  # seconds; a section that would be shorter with two lines gets four
_BARS_AT_THE_ENDS = 2


@dataclass(frozen=True)
class Outline:
    """Outline of a song."""

    seed: int
    number: int
    artist: Artist
    genre: Genre
    tempo: float  # beats per minute
    tonic: int  # pitch class, C is 0
    form: tuple[SectionKind, ...]
    grid: float = 0.0  # seconds between two times at which sounds may begin; 0 means any time
    arrangement: Arrangement = Arrangement.FULL

    @property
    def lines(self) -> int:
        """Number of lines in a verse or refrain: four if two lines would be short, else two."""
        two_lines = 2 * BARS_PER_LINE * self.genre.beats_per_bar * 60 / self.tempo
        return 2 if two_lines > _LONGEST_SHORT_SECTION else 4

    def bars(self, kind: SectionKind) -> int:
        """Return the number of bars of a section of this kind."""
        return _BARS_AT_THE_ENDS if kind in (_INTRO, _OUTRO) else BARS_PER_LINE * self.lines

    @property
    def seconds(self) -> float:
        """Duration of the song, including its tail."""
        beats = self.genre.beats_per_bar * sum(map(self.bars, self.form))
        return beats * (60 / self.tempo) + TAIL_SECONDS


def outline(seed: int, number: int, grid: float = 0.0, arrangement: Arrangement = Arrangement.FULL) -> Outline:
    """Draw the outline of a song.

    The songs form consecutive blocks in which every pair of artist and genre occurs exactly once. With a grid, the
    tempo is rounded so that half a beat is a whole number of grid steps, as in a music tracker. The arrangement changes
    neither the length nor the tunes.
    """
    pairs = [(artist, genre) for artist in ARTISTS.values() for genre in GENRES.values()]
    block, place = divmod(number, len(pairs))
    artist, genre = Dice(seed, Stream.ORDER, block).shuffled(pairs)[place]
    dice = Dice(seed, Stream.OUTLINE, number)
    tempo = _on_grid(dice.whole(*genre.tempo), grid)
    return Outline(seed, number, artist, genre, tempo, dice.choice(genre.tonics), dice.choice(FORMS), grid, arrangement)


def _on_grid(tempo: int, grid: float) -> float:
    if grid == 0:
        return tempo
    half_beat = 30 / tempo
    return 30 / (max(round(half_beat / grid), 1) * grid)
