"""Lyrics as characters, and the piece of them that a window sees (specification section 11)."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from jukebox_deploy.config import LabelRules, LyricsConfig
from jukebox_deploy.errors import LabelError

PADDING = 0
"""The token in front of short lyrics; it prints as nothing."""

_LISTED = 20  # characters that a warning names

_FIRST_CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits + ".,:;!?-"
_LAST_CHARACTERS = "'\"()[] \t\n"
_CHARACTERS = {
    LabelRules.WORDS: _FIRST_CHARACTERS + "+" + _LAST_CHARACTERS,
    LabelRules.NAMES: _FIRST_CHARACTERS + _LAST_CHARACTERS,
}


@dataclass(frozen=True)
class CleanedLyrics:
    """Lyrics in the model's characters, and what became of the others."""

    text: str
    replaced: Mapping[str, str]  # character -> what stands for it
    dropped: Mapping[str, int]  # character -> how often it was left out

    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user; none if nothing was lost."""
        if not self.dropped:
            return ()
        listed = _listed(f"{character!r} ({count}x)" for character, count in self.dropped.items())
        return (f"The lyrics have characters that the model does not know; they are left out: {listed}.",)

    def spellings(self) -> tuple[str, ...]:
        """The same for characters that will be sung as something that does not look like them."""
        spelled = {c: text for c, text in self.replaced.items() if not _is_alike(c)}
        if not spelled:
            return ()
        listed = _listed(f"{character!r} as {text!r}" for character, text in spelled.items())
        return (f"The lyrics have characters that the model does not know; it reads them so: {listed}.",)


@dataclass(frozen=True)
class LyricAlphabet:
    """The characters of one rule set. Token 0 is padding, token `i + 1` is `characters[i]`."""

    rules: LabelRules

    @classmethod
    def of(cls, config: LyricsConfig) -> Self:
        """The alphabet of a model, known by its size; `LabelError` if it has another one."""
        for rules in LabelRules:
            if cls(rules).size == config.vocabulary:
                return cls(rules)
        sizes = [cls(rules).size for rules in LabelRules]
        raise LabelError(
            f"The model has {config.vocabulary} lyric characters; alphabets are known for {sizes}. "
            "It takes lyrics as tokens only."
        )

    @property
    def characters(self) -> str:
        """The characters of tokens 1, 2, ..."""
        return _CHARACTERS[self.rules]

    @property
    def size(self) -> int:
        """Number of tokens, padding included."""
        return len(self.characters) + 1

    def clean(self, text: str) -> CleanedLyrics:
        """Transliterate to ASCII, turn backslashes into newlines, leave out what is still unknown."""
        counts = Counter(text)
        cleaned = {character: self._clean_character(character) for character in counts}
        # Carriage returns are half of a line's end on some systems: nothing is lost with them.
        dropped = {c: counts[c] for c, kept in cleaned.items() if not kept and c != "\r"}
        replaced = {c: kept for c, kept in cleaned.items() if kept and kept != c}
        return CleanedLyrics("".join(cleaned[character] for character in text), replaced, dropped)

    def encode(self, text: str) -> tuple[int, ...]:
        """Tokens of a cleaned text; `LabelError` names a character that is not in the alphabet."""
        tokens = {character: token for token, character in enumerate(self.characters, start=1)}
        try:
            return tuple(tokens[character] for character in text)
        except KeyError as error:
            raise LabelError(f"Lyrics: the model does not know the character {error}. Clean the text first.") from None

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens; padding prints as nothing. `LabelError` for tokens beyond the alphabet."""
        printed = ("", *self.characters)
        numbers = [int(token) for token in tokens]
        if outside := [number for number in numbers if not 0 <= number < len(printed)]:
            raise LabelError(f"Lyrics: token {outside[0]} is not one of 0 to {len(printed) - 1}.")
        return "".join(printed[number] for number in numbers)

    def _clean_character(self, character: str) -> str:
        if character.isascii():
            ascii_text = character
        else:  # a lone surrogate is no character; unidecode would warn of it
            ascii_text = "" if "\ud800" <= character <= "\udfff" else _import_unidecode()(character)
        return "".join(c for c in ascii_text.replace("\\", "\n") if c in self.characters)


@dataclass(frozen=True, eq=False)
class LyricWindow:
    """The lyrics that a window sees: tokens `[m]`, and where in the full lyrics each one is `[m]`.

    Padding has index -1.
    """

    tokens: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def lyric_window(
    lyrics: Sequence[int] | npt.NDArray[Any], count: int, *, total_length: int, offset: int, sample_length: int
) -> LyricWindow:
    """The `count` (even) tokens around the middle of a window of audio, all lengths in samples.

    Short lyrics are padded in front. The middle is computed in float32, left to right, as the
    original sampler does: in float64 it can be off by one character (specification section 11).
    `LabelError` for an offset outside the song.
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


def _listed(items: Iterable[str]) -> str:
    """The first of them, and how many more there are."""
    every = list(items)
    more = f" and {len(every) - _LISTED} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more


def _is_alike(character: str) -> bool:
    """Whether what stands for a character reads the same: a letter without its accent, a plain quotation mark."""
    return unicodedata.category(character)[0] in "PZ" or unicodedata.name(character, "").startswith("LATIN ")


def _import_unidecode() -> Callable[[str], str]:
    """The transliteration that the models were trained with; an extra, because of its licence (GPL)."""
    try:
        from unidecode import unidecode
    except ImportError:
        raise LabelError(
            "The lyrics have characters beyond ASCII, which the Unidecode package transliterates as in training. "
            "Install it with: pip install 'jukebox-deploy[lyrics]', or write the lyrics in ASCII."
        ) from None
    return unidecode
