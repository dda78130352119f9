"""The alignment of one song's lyrics: times of words and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jukebox_deploy.jobs.alignment.word_times import Focus, SungWord

_DIGITS = 3
"""Decimals of a time: milliseconds, about a third of a code of the released models."""


@dataclass(frozen=True)
class SungLine:
    """A line of which at least one word is sung; times are in seconds of the song's sound."""

    text: str  # all words of the line
    start: float
    end: float
    words: tuple[tuple[str, float | None], ...]  # with their start times; `None` for words that are not sung
    focus: Focus


@dataclass(frozen=True)
class SongAlignment:
    """The lyrics of one song."""

    words: tuple[SungWord, ...]
    lyrics: str  # as given
    characters: str  # of the lyrics, as the model reads them
    codes: int  # of the song
    hop_length: int  # samples per code
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Length of the song."""
        return self.time_of(self.codes)

    def time_of(self, code: int) -> float:
        """Return the start time of a code in seconds."""
        return round(code * self.hop_length / self.sample_rate, _DIGITS)

    @property
    def sung(self) -> tuple[SungWord, ...]:
        """The words that have a time."""
        return tuple(word for word in self.words if word.codes)

    @property
    def focus(self) -> Focus:
        """The focus of the attention on the words while they are sung."""
        return Focus.together(word.focus for word in self.sung)

    @property
    def lines(self) -> tuple[SungLine, ...]:
        """The lines of which at least one word is sung."""
        grouped = (tuple(words) for _, words in groupby(self.words, key=lambda sung: sung.word.line))
        return tuple(self._line(words) for words in grouped if any(word.codes for word in words))

    def _line(self, words: Sequence[SungWord]) -> SungLine:
        sung = [word for word in words if word.codes]
        return SungLine(
            text=" ".join(word.word.text for word in words),
            start=self.time_of(sung[0].codes.start),
            end=self.time_of(sung[-1].codes.stop),
            words=tuple((word.word.text, self.time_of(word.codes.start) if word.codes else None) for word in words),
            focus=Focus.together(word.focus for word in sung),
        )

    def to_json(self) -> dict[str, Any]:
        """Words with their times as plain data; `null` for those that are not sung.

        `attention` is the share of attention, beyond every character's average, on the word while it is sung; 0 to 1.
        """
        return {
            "seconds": self.seconds,
            "attention": round(self.focus.share, 4),
            "attention_by_chance": round(self.focus.chance, 4),
            "words": [
                {
                    "text": sung.word.text,
                    "line": sung.word.line,
                    "start": self.time_of(sung.codes.start) if sung.codes else None,
                    "end": self.time_of(sung.codes.stop) if sung.codes else None,
                    "attention": round(sung.focus.share, 4),
                }
                for sung in self.words
            ],
        }
