"""Configuration of one autoregressive prior, the top prior or an upsampler (specification 8)."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config.checks import exact_division, require, require_at_least, require_finite
from jukebox_deploy.config.convolutions import ConditionerConfig
from jukebox_deploy.config.labels import LYRIC_PATTERNS, LabelConfig, LyricsConfig, TimingConfig
from jukebox_deploy.config.transformer import TransformerConfig


@dataclass(frozen=True)
class PriorConfig:
    """One autoregressive prior: the top prior or an upsampler."""

    level: int
    window: int  # music codes per window, `n_ctx`
    codebook_size: int
    transformer: TransformerConfig
    labels: LabelConfig | None = None
    lyrics: LyricsConfig | None = None
    conditioner: ConditionerConfig | None = None
    merged_decoder: bool = False  # the stack has its own output matrix, and conditioning is added only once
    hop_fraction: float = 0.5  # share of a window that is not in the previous one

    def __post_init__(self) -> None:
        where = f"prior {self.level}"
        require_at_least(1, where, window=self.window, codebook_size=self.codebook_size)
        length, found = self.lyric_prefix + self.window, self.transformer.context
        require(found == length, f"{where}: the stack has {found} positions, lyrics + window {length}.")
        self._check_hop(where)
        self._check_lyrics(where)
        if self.conditioner:
            require(self.timing is None, f"{where}: timing is for top priors, and this one has a conditioner.")

    def _check_hop(self, where: str) -> None:
        require_finite(where, hop_fraction=self.hop_fraction)
        require(
            1 <= self.hop <= self.window,
            f"{where}: hop_fraction {self.hop_fraction} makes a hop of {self.hop} codes, not 1 to {self.window}.",
        )
        if self.conditioner:
            exact_division(self.window, self.conditioner.upsampling, f"{where}: window over upsampling")
            exact_division(self.hop, self.conditioner.upsampling, f"{where}: hop between windows over upsampling")

    def _check_lyrics(self, where: str) -> None:
        stack, lyrics = self.transformer, self.lyrics
        has_encoder = lyrics is not None and lyrics.encoder is not None
        require(
            (AttentionPattern.CROSS in stack.patterns) == has_encoder,
            f"{where}: cross-attention needs a lyric encoder, and an encoder needs it: order {stack.order!s} with "
            f"{stack.depth} layers has {'no ' if has_encoder else ''}cross-attention.",
        )
        tokens = lyrics.tokens if lyrics else 0
        if has_encoder:
            found = stack.encoder_tokens
            require(found == tokens, f"{where}: encoder_tokens is {found}, and there are {tokens} lyric tokens.")
        if AttentionPattern.PRIME in stack.patterns:
            found, prefix = stack.prime_tokens, self.lyric_prefix
            require(found == prefix, f"{where}: prime_tokens is {found}, and {prefix} lyric tokens precede the codes.")
        if lyrics and lyrics.alignment_layer is not None:
            self._check_alignment(where, lyrics.alignment_layer, lyrics.alignment_head or 0)

    def _check_alignment(self, where: str, layer: int, head: int) -> None:
        stack = self.transformer
        require(0 <= layer < stack.depth, f"{where}: alignment_layer {layer} of a stack of {stack.depth} layers.")
        require(0 <= head < stack.heads, f"{where}: alignment_head {head} of {stack.heads} heads.")
        pattern = stack.patterns[layer]
        require(pattern in LYRIC_PATTERNS, f"{where}: alignment_layer {layer} has {pattern!s}, and sees no lyrics.")

    @property
    def lyric_prefix(self) -> int:
        """Number of lyric positions before the first code; 0 with a separate encoder or without lyrics."""
        return self.lyrics.tokens if self.lyrics and self.lyrics.encoder is None else 0

    @property
    def code_shift(self) -> int:
        """Offset of the codes in the vocabulary that they share with the lyrics."""
        return self.lyrics.vocabulary if self.lyrics and self.lyrics.encoder is None else 0

    @property
    def bins(self) -> int:
        """Size of the stack's vocabulary."""
        return self.codebook_size + self.code_shift

    @property
    def tied_output(self) -> bool:
        """Whether the output matrix is the token embedding (specification section 8)."""
        return not self.merged_decoder or self.lyric_prefix > 0

    @property
    def readds_conditioning(self) -> bool:
        """Whether the conditioning rows are added again after the stack."""
        return self.tied_output and self.has_conditioning

    @property
    def has_conditioning(self) -> bool:
        """Whether there are conditioning rows (from timing or upper codes)."""
        return self.conditioner is not None or self.timing is not None

    @property
    def timing(self) -> TimingConfig | None:
        """The timing settings; `None` unless this is a labelled top prior."""
        return self.labels.timing if self.labels else None

    @property
    def hop(self) -> int:
        """Number of codes between the starts of consecutive windows, rounded down; 15 / 22 of 22 codes are 15."""
        return int(self.hop_fraction * self.window + 1e-9)
