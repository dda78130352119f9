"""Lyrics as characters, and selection of the part that a window sees (specification section 11)."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from jukebox_deploy.config import LabelRules, LyricsConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.listing import listed, words_of

PADDING = 0
"""The token that pads short lyrics at the front; it stands for no character."""

_LISTED = 20  # maximum number of characters that a warning lists

_FIRST_CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + ".,:;!?-"
_LAST_CHARACTERS = "'\"()[] \t\n"
_CHARACTERS = {
    LabelRules.WORDS: _FIRST_CHARACTERS + "+" + _LAST_CHARACTERS,
    LabelRules.NAMES: _FIRST_CHARACTERS + _LAST_CHARACTERS,
}


@dataclass(frozen=True)
class CleanedLyrics:
    """Lyrics in the model's characters, and the characters that were replaced or dropped."""

    text: str
    replaced: Mapping[str, str]  # character -> its replacement
    dropped: Mapping[str, int]  # character -> number of times it was dropped
    places: tuple[int, ...]  # start in `text` of the replacement of each original character, then the end of `text`

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about dropped characters; none if there are none."""
        if not self.dropped:
            return ()
        characters = listed((f"{character!r} ({count}x)" for character, count in self.dropped.items()), _LISTED)
        return (f"The lyrics have characters that the model does not know; they are left out: {characters}.",)

    def spellings(self) -> tuple[str, ...]:
        """Return warnings about characters whose replacements look different from them."""
        spelled = {c: text for c, text in self.replaced.items() if not _is_alike(c)}
        if not spelled:
            return ()
        spellings = listed((f"{character!r} as {text!r}" for character, text in spelled.items()), _LISTED)
        return (f"The lyrics have characters that the model does not know; they are transliterated: {spellings}.",)


@dataclass(frozen=True)
class LyricAlphabet:
    """The lyric characters of one rule set. Token 0 is padding, token `i + 1` is `characters[i]`."""

    rules: LabelRules

    @classmethod
    def of(cls, config: LyricsConfig) -> Self:
        """Return the alphabet of a model, identified by its size; raise `LabelError` if no alphabet has that size."""
        for rules in LabelRules:
            if cls(rules).size == config.vocabulary:
                return cls(rules)
        sizes = words_of(str(cls(rules).size) for rules in LabelRules)
        raise LabelError(
            f"The model has {config.vocabulary} lyric characters, but the known alphabets have {sizes}. "
            "It takes lyrics only as tokens."
        )

    @property
    def characters(self) -> str:
        """The characters of the tokens 1, 2, ..."""
        return _CHARACTERS[self.rules]

    @property
    def size(self) -> int:
        """Number of tokens, padding included."""
        return len(self.characters) + 1

    def clean(self, text: str) -> CleanedLyrics:
        """Transliterate a text to ASCII, turn backslashes into newlines, and drop characters that are still unknown."""
        counts = Counter(text)
        cleaned = {character: self._clean_character(character) for character in counts}
        # A carriage return is not reported as dropped: it is only part of a line end on some systems.
        dropped = {c: counts[c] for c, kept in cleaned.items() if not kept and c != "\r"}
        replaced = {c: kept for c, kept in cleaned.items() if kept and kept != c}
        pieces = [cleaned[character] for character in text]
        places = tuple(accumulate(map(len, pieces), initial=0))
        return CleanedLyrics("".join(pieces), replaced, dropped, places)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the tokens of a cleaned text; raise `LabelError` for a character that is not in the alphabet."""
        tokens = {character: token for token, character in enumerate(self.characters, start=1)}
        try:
            return tuple(tokens[character] for character in text)
        except KeyError as error:
            raise LabelError(f"Lyrics: the model does not know the character {error}. Clean the text first.") from None

    def _clean_character(self, character: str) -> str:
        if character.isascii():
            ascii_text = character
        else:  # a lone surrogate is not a character, and unidecode would issue a warning
            ascii_text = "" if "\ud800" <= character <= "\udfff" else _import_unidecode()(character)
        return "".join(c for c in ascii_text.replace("\\", "\n") if c in self.characters)


@dataclass(frozen=True, eq=False)
class LyricWindow:
    """The lyrics that a window sees: tokens `[m]`, and their indices in the full lyrics `[m]`.

    Padding has index -1.
    """

    tokens: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def lyric_window(
    lyrics: Sequence[int] | npt.NDArray[Any], count: int, *, total_length: int, offset: int, sample_length: int
) -> LyricWindow:
    """Return the `count` (even) tokens around the middle of a window of audio; all lengths are in samples.

    Short lyrics are padded at the front. The middle is computed in float32 from left to right, as in the original
    sampler: in float64, it can differ by one character (specification section 11). Raises `LabelError` for an offset
    outside the song.
    """
    if not 0 <= offset < total_length:
        raise LabelError(f"Lyrics: the window starts at sample {offset}, outside the song of {total_length} samples.")
    full = len(lyrics)
    if full < count:
        start, padding = 0, count - full
    else:
        single = np.float32
        middle = single(full) * (single(offset) + single(sample_length) / single(2)) / single(total_length)
        start, padding = min(max(int(middle), count // 2), full - count // 2) - count // 2, 0
    tokens = np.full(count, PADDING, np.int64)
    indices = np.full(count, -1, np.int64)
    indices[padding:] = np.arange(start, start + count - padding)
    tokens[padding:] = np.asarray(lyrics, np.int64)[indices[padding:]]
    return LyricWindow(tokens, indices)


def _is_alike(character: str) -> bool:
    """Return whether the replacement of a character reads the same: punctuation, spaces and accented letters."""
    return unicodedata.category(character)[0] in "PZ" or unicodedata.name(character, "").startswith("LATIN ")


def _import_unidecode() -> Callable[[str], str]:
    """Import the transliteration that the models were trained with; it is optional because of its licence (GPL)."""
    try:
        from unidecode import unidecode
    except ImportError:
        raise LabelError(
            "The lyrics have characters beyond ASCII, which the Unidecode package transliterates as in training. "
            "Install it with: pip install unidecode, or write the lyrics in ASCII."
        ) from None
    return unidecode
