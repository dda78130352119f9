"""Times of sung words, from the attention to lyric characters.

Attention alone is not precise: some characters always get some, it spreads widely while nobody sings, and for a
repeated line it goes to all repetitions. Therefore only the excess counts, which is the attention that a character
gets beyond its own average, and lyrics are assumed to be sung in order. Among all monotone paths through the
characters, which may begin, end, stay and jump ahead anywhere, the one with the largest total excess is chosen. A word
is sung while the path is on one of its characters, except at codes at both ends where attention to the word is faint:
there the path only waits for the next word. A word is not sung if the path skips it, or if its share of the excess is
hardly above chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

_WORD, _LINE_END = re.compile(r"[^\s\\]+"), re.compile(r"[\n\\]")

_FAINT = 0.25
"""Share of a word's largest excess below which its attention counts as faint."""

_LITTLE = 0.2
"""Fraction of the range from a word's share by chance to 1, up to which it is not sung; noise almost reaches it."""


@dataclass(frozen=True)
class Word:
    """A word of the lyrics."""

    text: str  # as given
    line: int  # index of its line in the lyrics
    first: int  # its first character among those that the model reads
    stop: int  # the character after its last one; equals `first` if the model has none of its characters


@dataclass(frozen=True)
class Focus:
    """The share of the excess on a word, or on several words, at their codes; each number is a sum over codes."""

    to_word: float = 0.0
    to_lyrics: float = 0.0
    by_chance: float = 0.0  # on the word, if the excess were spread evenly over all visible characters

    @classmethod
    def on(cls, word: Word, excess: np.ndarray, seen: np.ndarray) -> Self:
        """Compute the focus on a word; `excess` is `[codes, characters]`, `seen` `[codes]` counts visible ones."""
        everything = excess.sum(axis=1)
        evenly = everything * (word.stop - word.first) / np.maximum(seen, 1)
        own = excess[:, word.first : word.stop]
        return cls(float(own.sum()), float(everything.sum()), float(evenly.sum()))

    @classmethod
    def together(cls, focuses: Iterable[Focus]) -> Self:
        """Return the sum of several."""
        numbers = [(focus.to_word, focus.to_lyrics, focus.by_chance) for focus in focuses]
        return cls(*np.sum(numbers, axis=0).tolist()) if numbers else cls()

    @property
    def share(self) -> float:
        """The share of the excess on the word; 0 to 1."""
        return self.to_word / self.to_lyrics if self.to_lyrics else 0.0

    @property
    def chance(self) -> float:
        """The share expected by chance; 0 to 1."""
        return self.by_chance / self.to_lyrics if self.to_lyrics else 0.0

    @property
    def is_little(self) -> bool:
        """Whether the share is hardly above chance."""
        return self.share - self.chance <= _LITTLE * (1 - self.chance)


@dataclass(frozen=True)
class SungWord:
    """A word and the codes at which it is sung; none if it is not sung."""

    word: Word
    codes: range = range(0)
    focus: Focus = Focus()


def lyric_words(lyrics: str, places: Sequence[int]) -> tuple[Word, ...]:
    """Split lyrics, as given, into words; `places` of their characters are as in `CleanedLyrics`.

    A backslash ends a line, as it does for the model.
    """
    return tuple(
        Word(
            found.group(), len(_LINE_END.findall(lyrics, 0, found.start())), places[found.start()], places[found.end()]
        )
        for found in _WORD.finditer(lyrics)
    )


def sung_words(attention: np.ndarray, words: Sequence[Word]) -> tuple[SungWord, ...]:
    """Find when words are sung; `attention` is `[codes, characters]`, 0 where a character is not visible."""
    average = attention.sum(axis=0) / np.maximum(np.count_nonzero(attention, axis=0), 1)
    excess, seen = np.maximum(attention - average, 0), np.count_nonzero(attention, axis=1)
    path = monotone_path(excess)
    found = []
    for word in words:
        codes = _codes_of(word, excess, path)
        rows = slice(codes.start, codes.stop)
        focus = Focus.on(word, excess[rows], seen[rows])
        found.append(SungWord(word) if focus.is_little else SungWord(word, codes, focus))
    return tuple(found)


def monotone_path(weights: np.ndarray) -> np.ndarray:
    """Return the character at each code `[codes]` on the monotone path with the largest sum of weights.

    `weights` is `[codes, characters]`, non-empty and non-negative. Dynamic programming: the best sum that ends at a
    character is its weight plus the best previous sum that ends there or earlier. Needs one byte per element of
    `weights`.
    """
    codes, characters = weights.shape
    stays = np.empty((codes, characters), bool)  # whether no path that ends earlier is better before the code
    sums = np.zeros(characters)
    for code, row in enumerate(weights):
        best = np.maximum.accumulate(sums)
        stays[code] = sums == best
        sums = best + row
    path = np.empty(codes, np.int64)
    place = int(sums.argmax())
    for code in range(codes - 1, -1, -1):
        path[code] = place
        place = int(np.flatnonzero(stays[code, : place + 1])[-1])
    return path


def _codes_of(word: Word, excess: np.ndarray, path: np.ndarray) -> range:
    """Return the codes at which the path is on a word, without faint ones at both ends."""
    begin, end = (int(code) for code in np.searchsorted(path, (word.first, word.stop)))
    weights = excess[begin:end, word.first : word.stop].sum(axis=1)
    if not weights.any():
        return range(0)
    heard = np.flatnonzero(weights >= _FAINT * weights.max())
    return range(begin + int(heard[0]), begin + int(heard[-1]) + 1)
