"""What is decided of a song before a note is written: artist, genre, tempo, key, form. From it follows the length."""

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
"""The forms of songs."""

BARS_PER_LINE = 2
_LONGEST_SHORT_SECTION = 8.0  # seconds; a section of two lines that is shorter gets four
_BARS_AT_THE_ENDS = 2


@dataclass(frozen=True)
class Outline:
    """A song before a note is written."""

    seed: int
    number: int
    artist: Artist
    genre: Genre
    tempo: float  # beats per minute
    tonic: int  # pitch class, C is 0
    form: tuple[SectionKind, ...]
    grid: float = 0.0  # seconds between two places where sounds may begin; 0: anywhere
    arrangement: Arrangement = Arrangement.FULL

    @property
    def lines(self) -> int:
        """Lines of text in a verse or refrain: more of them where they go by quickly."""
        two_lines = 2 * BARS_PER_LINE * self.genre.beats_per_bar * 60 / self.tempo
        return 2 if two_lines > _LONGEST_SHORT_SECTION else 4

    def bars(self, kind: SectionKind) -> int:
        """Bars of a section of this kind."""
        return _BARS_AT_THE_ENDS if kind in (_INTRO, _OUTRO) else BARS_PER_LINE * self.lines

    @property
    def seconds(self) -> float:
        """Length of the song, its tail included."""
        beats = self.genre.beats_per_bar * sum(map(self.bars, self.form))
        return beats * (60 / self.tempo) + TAIL_SECONDS


def outline(seed: int, number: int, grid: float = 0.0, arrangement: Arrangement = Arrangement.FULL) -> Outline:
    """The outline of a song. Within each run of as many songs, every artist meets every genre once.

    With a grid half a beat lasts a whole number of its steps, as in a tracker. The arrangement changes neither length
    nor tune.
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
