"""Requests: what a user can specify about one song and the sampling of its levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.errors import SamplingError


class Mode(StrEnum):
    """Where the first codes of a song come from (specification 12.4)."""

    ANCESTRAL = "ancestral"  # none are given
    PRIMED = "primed"  # a sound file, encoded at every level
    CONTINUE = "continue"  # the codes of another song folder; every level is continued
    UPSAMPLE = "upsample"  # the top-level codes of another song folder; only the lower levels are sampled


FROM_CODES = (Mode.CONTINUE, Mode.UPSAMPLE)
"""The modes whose source is a song folder."""

OPTIONS = {
    "seconds": "--seconds",
    "total_seconds": "--total-seconds",
    "offset_seconds": "--offset",
    "source_seconds": "--prompt-seconds",
    "artist": "--artist",
    "genre": "--genre",
    "lyrics": "--lyrics",
}
"""Command-line options of the fields of a `SongRequest`, for error messages."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SamplingError(message)


def is_text(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8.

    Lone surrogates cannot be, and thus cannot be written to song.json. They come from undecodable bytes and from
    broken surrogate pairs.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True)
class LevelSettings:
    """Sampling settings of one level; `None` disables a filter (specification 12.3)."""

    temperature: float = 0.99  # 0 means always the most likely code
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _require(
            math.isfinite(self.temperature) and self.temperature >= 0.0,
            f"temperature {self.temperature} is invalid; give 0 (always the most likely code) or more.",
        )
        _require(self.top_k is None or self.top_k >= 1, f"top-k {self.top_k} is invalid; give 1 or more, or none.")
        _require(
            self.top_p is None or 0.0 < self.top_p <= 1.0,
            f"top-p {self.top_p} is invalid; give a number above 0 and at most 1, or none.",
        )
        _require(self.top_k is None or self.top_p is None, "top-k and top-p exclude each other; give only one of them.")


@dataclass(frozen=True)
class SongRequest:
    """Everything that determines the codes of one song, apart from the model.

    `song` numbers the songs that share a seed. `source` is a sound file (primed) or a song folder (continue, upsample),
    of which only the first `source_seconds` are used. `total_seconds` is the length of the whole song as the model is
    told it (default: up to the end of the sampled part), and `offset_seconds` is where the sampled part begins in it.
    """

    mode: Mode = Mode.ANCESTRAL
    seconds: float | None = None  # of the result, source included; None: the length of the source (upsample only)
    artist: str = ""
    genre: str = ""
    lyrics: str = ""
    total_seconds: float | None = None
    offset_seconds: float = 0.0
    seed: int = 0
    song: int = 0
    source: str | None = None
    source_seconds: float | None = None
    levels: tuple[LevelSettings, ...] = ()  # level 0 first; missing levels use the defaults

    def __post_init__(self) -> None:
        for name in ("seconds", "total_seconds", "source_seconds"):
            value: float | None = getattr(self, name)
            _require(
                value is None or (math.isfinite(value) and value > 0),
                f"{OPTIONS[name]} {value} is invalid; give more than 0 seconds.",
            )
        _require(
            math.isfinite(self.offset_seconds) and self.offset_seconds >= 0,
            f"--offset {self.offset_seconds} is invalid; give 0 seconds or more.",
        )
        for name, number, bits in (("--seed", self.seed, 64), ("song", self.song, 32)):
            _require(0 <= number < 2**bits, f"{name} {number} is out of range; give 0 to 2^{bits} - 1.")
        self._check_texts()
        self._check_mode()

    def _check_texts(self) -> None:
        for name in ("artist", "genre", "lyrics"):
            text: str = getattr(self, name)
            _require(is_text(text), f"{OPTIONS[name]} {text[:80]!r} is not text in UTF-8; give it in UTF-8.")
        _require(is_text(self.source or ""), f"the path {self.source!r} is not text in UTF-8; rename the file.")

    def _check_mode(self) -> None:
        if self.mode is Mode.ANCESTRAL:
            _require(self.source is None, f"mode ancestral takes no source, found {self.source}; drop it.")
        else:
            what = "sound file" if self.mode is Mode.PRIMED else "song folder"
            _require(self.source is not None, f"mode {self.mode} starts from a {what}; give one.")
        _require(
            self.seconds is not None or self.mode is Mode.UPSAMPLE,
            f"mode {self.mode} needs the length of the song; give it with --seconds.",
        )

    def settings(self, level: int) -> LevelSettings:
        """Return the settings of a level."""
        return self.levels[level] if level < len(self.levels) else LevelSettings()


@dataclass(frozen=True)
class SongLengths:
    """Numbers of codes of a song, level 0 first."""

    given: tuple[int, ...]  # those taken from a prompt or another song, not sampled
    totals: tuple[int, ...]

    def levels_to_sample(self, lowest: int) -> list[int]:
        """Return the levels to sample, from the top down to `lowest`: those whose codes are not all given."""
        levels = range(len(self.totals) - 1, lowest - 1, -1)
        return [level for level in levels if self.given[level] < self.totals[level]]


def whole_samples(seconds: float, vqvae: VQVAEConfig) -> int:
    """Convert a length to samples, rounded down to whole top-level codes (specification 12.4); may be 0."""
    hop = vqvae.hop_lengths[-1]
    # The tolerance keeps n codes, converted to seconds, n codes in spite of float rounding.
    return int(seconds * vqvae.sample_rate / hop + 1e-6) * hop
