"""Configuration of what a prior is told of a song: artist, genre, timing and lyrics (specification 10, 11)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config.checks import require, require_at_least, require_finite
from jukebox_deploy.config.transformer import TransformerConfig

LYRIC_PATTERNS = (AttentionPattern.CROSS, AttentionPattern.PRIME)
"""The patterns of layers that attend to the lyrics."""


class LabelRules(StrEnum):
    """The rules for mapping names to ids (specification section 11)."""

    WORDS = "v2"  # normalised names; a genre is a bag of words
    NAMES = "v3"  # lower-cased names; a single genre


@dataclass(frozen=True)
class TimingConfig:
    """The position of a window in its song, encoded as three bins (top level only)."""

    bins: int
    min_duration: float  # shortest whole song, in seconds
    max_duration: float  # longest whole song, in seconds

    def __post_init__(self) -> None:
        require_at_least(1, "timing", bins=self.bins)
        require_finite("timing", min_duration=self.min_duration, max_duration=self.max_duration)
        require(
            0 <= self.min_duration < self.max_duration,
            f"timing: songs of {self.min_duration:g} to {self.max_duration:g} s; "
            "min_duration must be at least 0 and below max_duration.",
        )


@dataclass(frozen=True)
class LabelConfig:
    """Conditioning on artist, genre and timing."""

    rules: LabelRules
    artists: int  # rows of the artist table
    genres: int  # rows of the genre table
    genre_slots: int  # genre ids per song; unused ones are -1
    timing: TimingConfig | None = None

    def __post_init__(self) -> None:
        require_at_least(1, "labels", artists=self.artists, genres=self.genres, genre_slots=self.genre_slots)


@dataclass(frozen=True)
class LyricsConfig:
    """The lyric tokens of a window; without a lyric encoder they precede the codes in the prior's own sequence."""

    tokens: int  # per window, even
    vocabulary: int  # 80 in v2, 79 in v3
    loss_fraction: float = 0.4
    encoder: TransformerConfig | None = None
    alignment_layer: int | None = None
    alignment_head: int | None = None

    def __post_init__(self) -> None:
        require(self.tokens > 0 and self.tokens % 2 == 0, f"lyrics: tokens must be even, found {self.tokens}.")
        require_at_least(1, "lyrics", vocabulary=self.vocabulary)
        require_finite("lyrics", loss_fraction=self.loss_fraction)
        require(
            (self.alignment_layer is None) == (self.alignment_head is None),
            "lyrics: alignment_layer and alignment_head belong together; give both or neither.",
        )
        if self.encoder is not None:
            found, order = self.encoder.context, self.encoder.order
            require(found == self.tokens, f"lyrics: the encoder has {found} positions for {self.tokens} tokens.")
            attends_to_lyrics = set(LYRIC_PATTERNS) & set(self.encoder.patterns)
            require(not attends_to_lyrics, f"lyrics: an encoder cannot have order {order!s}, which is for priors.")
