"""Lyrics: a small list of words with their pronunciation, and lines made of these words.

Words are written in syllables, `riv-er`, and so are their sounds, `r ee v - uh r`. The sounds are those of
`voice_sounds`; two vowels in a row glide from one to the other, as in `n ah ee t`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.data.dice import Dice


@dataclass(frozen=True)
class WordSyllable:
    """A syllable with its spelling and its sounds."""

    text: str
    sounds: tuple[str, ...]


@dataclass(frozen=True)
class Word:
    """A word as a sequence of syllables."""

    syllables: tuple[WordSyllable, ...]

    def __str__(self) -> str:
        return "".join(syllable.text for syllable in self.syllables)


Line = tuple[Word, ...]


def _words(table: str) -> dict[str, tuple[Word, ...]]:
    """Parse lines of `kind: spelling = sounds; spelling = sounds; ...` into words by kind."""
    kinds = {}
    for line in table.strip().splitlines():
        kind, _, entries = line.partition(":")
        kinds[kind.strip()] = tuple(_word(entry) for entry in entries.split(";"))
    return kinds


def _word(entry: str) -> Word:
    spelling, sounds = entry.split("=")
    pairs = zip(spelling.strip().split("-"), sounds.split(" - "), strict=True)
    return Word(tuple(WordSyllable(text, tuple(part.split())) for text, part in pairs))


_NOUNS = (
    "moon = m oo n; sea = s ee; stone = s t oh n; road = r oh d; home = h oh m; star = s t ah r; rain = r eh ee n; "
    "night = n ah ee t; light = l ah ee t; wind = w ee n d; bell = b eh l; bird = b uh r d; boat = b oh t; "
    "tree = t r ee; snow = s n oh; song = s oh ng; heart = h ah r t; door = d oh r; day = d eh ee; sky = s k ah ee; "
    "riv-er = r ee - v uh r; gar-den = g ah r - d uh n; win-ter = w ee n - t uh r; sum-mer = s uh - m uh r; "
    "wa-ter = w oh - t uh r; shad-ow = sh eh - d oh; can-dle = k eh n - d uh l; har-bor = h ah r - b uh r; "
    "moun-tain = m ah oo n - t uh n; mea-dow = m eh - d oh; mir-ror = m ee - r uh r; vil-lage = v ee - l eh j"
)
_ADJECTIVES = (
    "cold = k oh l d; old = oh l d; deep = d ee p; slow = s l oh; blue = b l oo; green = g r ee n; new = n oo; "
    "low = l oh; warm = w oh r m; bright = b r ah ee t; gold-en = g oh l - d uh n; sil-ver = s ee l - v uh r; "
    "qui-et = k w ah ee - eh t; lit-tle = l ee - t uh l; yel-low = y eh - l oh; hol-low = h oh - l oh; "
    "lone-ly = l oh n - l ee; dis-tant = d ee s - t uh n t"
)
_VERBS = (
    "go = g oh; run = r uh n; sing = s ee ng; fall = f oh l; rise = r ah ee z; shine = sh ah ee n; wait = w eh ee t; "
    "sleep = s l ee p; glow = g l oh; turn = t uh r n; call = k oh l; roam = r oh m; fol-low = f oh - l oh; "
    "wan-der = w oh n - d uh r; lis-ten = l ee - s uh n; o-pen = oh - p uh n; trem-ble = t r eh m - b uh l; "
    "re-turn = r ee - t uh r n"
)
_SMALL_WORDS = (
    "the = th uh; and = eh n d; will = w ee l; we = w ee; you = y oo; my = m ah ee; by = b ah ee; to = t oo; "
    "so = s oh; me = m ee; all = oh l; oh = oh; la = l ah; down = d ah oo n; in = ee n"
)

WORDS = _words(f"noun: {_NOUNS}\nadjective: {_ADJECTIVES}\nverb: {_VERBS}\nsmall: {_SMALL_WORDS}")
"""The words by kind."""

_SMALL = {str(word): word for word in WORDS["small"]}
_FILLER = _SMALL["la"]

_TEMPLATES = tuple(
    tuple(template.split())
    for template in (
        "the adjective noun will verb",
        "we verb by the noun",
        "and you verb down to the noun",
        "oh my adjective noun",
        "verb to me in the noun",
        "all the noun will verb and verb",
        "so verb my adjective noun",
        "we will verb by the adjective noun",
        "the noun and the noun verb",
    )
)
_TRIES = 12


def compose_line(syllables: int, dice: Dice) -> Line:
    """Compose a line of exactly `syllables` syllables (at least five); "la" fills up the rest."""
    lines = [_fill(dice.choice(_TEMPLATES), dice) for _ in range(_TRIES)]
    fitting = [line for line in lines if syllable_count(line) <= syllables]
    best = max(fitting, key=syllable_count, default=())
    return (*best, *[_FILLER] * (syllables - syllable_count(best)))


def syllable_count(line: Line) -> int:
    """Count the syllables of a line."""
    return sum(len(word.syllables) for word in line)


def _fill(template: tuple[str, ...], dice: Dice) -> Line:
    return tuple(dice.choice(WORDS[slot]) if slot in WORDS else _SMALL[slot] for slot in template)
