"""What a model is: frozen dataclasses, checked once when they are made.

Pure Python (no torch), so that declarations, costs and the command line can use it at once.
Levels are counted as in the paper's code: level 0 is the finest ("bottom"), the last is the top.
Source: specification sections 2 to 13 and 21.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern, exact_division, layer_patterns
from jukebox_deploy.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class VQVAEConfig:
    """The multi-level VQ-VAE: per level an encoder, a codebook and a decoder of its own."""

    sample_rate: int = 44_100  # Hz
    downs: tuple[int, ...] = (3, 2, 2)  # strided stages that each level adds
    strides: tuple[int, ...] = (2, 2, 2)  # stride of each of those stages, even
    multipliers: tuple[int, ...] = (2, 1, 1)  # of width and depth, per level
    width: int = 32  # channels of the residual stacks
    depth: int = 4  # residual blocks per stack
    embedding_width: int = 64  # channels of a codebook entry
    codebook_size: int = 2048
    convolution_ratio: float = 1.0  # inner over outer channels of a residual block
    dilation_growth: int = 3
    dilation_cycle: int | None = None
    reverse_decoder_dilation: bool = True

    def __post_init__(self) -> None:
        lengths = {len(self.downs), len(self.strides), len(self.multipliers)}
        _require(len(lengths) == 1, "vqvae: downs, strides and multipliers need one entry per level each.")
        _require(all(s % 2 == 0 for s in self.strides), f"vqvae: strides must be even, found {self.strides}.")
        _require(self.codebook_size > 0 and self.sample_rate > 0, "vqvae: sizes must be positive.")

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.downs)

    def downsampling(self, level: int) -> int:
        """Codes of `level - 1` (for level 0: samples) per code of `level`."""
        return int(self.strides[level] ** self.downs[level])

    def hop_length(self, level: int) -> int:
        """Audio samples per code of `level`."""
        return math.prod(self.downsampling(m) for m in range(level + 1))

    @property
    def hop_lengths(self) -> tuple[int, ...]:
        """Audio samples per code, level 0 first."""
        return tuple(self.hop_length(level) for level in range(self.levels))

    def level_width(self, level: int) -> int:
        """Channels of the residual stacks of `level`."""
        return self.width * self.multipliers[level]

    def level_depth(self, level: int) -> int:
        """Residual blocks per stack of `level`."""
        return self.depth * self.multipliers[level]


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of factored-attention layers and the sequence it works on."""

    context: int  # positions, lyrics included where they share the sequence
    width: int
    depth: int
    heads: int
    order: AttentionOrder = AttentionOrder.DENSE
    blocks: int | None = None  # number of blocks, not their length
    attention_ratio: float = 0.25  # attention state width over width
    mlp_ratio: float = 1.0
    prime_tokens: int = 0  # lyric tokens at the head of the sequence (pattern "prime")
    encoder_tokens: int = 0  # lyric encoder positions (pattern "cross")
    spread: int = 1  # keys per block of the pattern "spread_summary"
    scale_residual: bool = False
    zero_output: bool = False  # output projections start at zero
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        exact_division(self.state_width, self.heads, "transformer: attention state width over heads")
        if self.blocks:
            exact_division(self.context, self.blocks, "transformer: context over blocks")
        elif self.order is not AttentionOrder.DENSE:
            raise ConfigError(f"transformer: attention order {self.order!s} needs a number of blocks.")
        if AttentionPattern.CROSS in self.patterns:
            _require(self.encoder_tokens > 0, f"transformer: order {self.order!s} needs encoder_tokens.")
        if AttentionPattern.PRIME in self.patterns:
            _require(self.prime_tokens > 0, f"transformer: order {self.order!s} needs prime_tokens.")

    @property
    def state_width(self) -> int:
        """Width of the queries, keys and values of all heads together, `S`."""
        return int(self.attention_ratio * self.width)

    @property
    def head_width(self) -> int:
        """Width of one head, `D`."""
        return self.state_width // self.heads

    @property
    def mlp_width(self) -> int:
        """Width between the two layers of an MLP."""
        return int(self.mlp_ratio * self.width)

    @property
    def block_count(self) -> int:
        """Number of blocks; for a dense stack without blocks, of prefill chunks of at most 64."""
        if self.blocks:
            return self.blocks
        return next(n for n in range(math.ceil(self.context / 64), self.context + 1) if self.context % n == 0)

    @property
    def block_length(self) -> int:
        """Positions per block, `c`; also the length of a prefill chunk."""
        return self.context // self.block_count

    @property
    def prime_span(self) -> int:
        """Keys that the pattern "prime" can see: whole multiples of the *number* of blocks."""
        blocks = self.blocks or 1
        return (self.prime_tokens // blocks + 1) * blocks

    @property
    def patterns(self) -> tuple[AttentionPattern, ...]:
        """The attention pattern of every layer."""
        return layer_patterns(self.order, self.depth)

    def cache_length(self, pattern: AttentionPattern) -> int:
        """Positions that a layer of this pattern keeps, with room for writes that nobody reads.

        Source: specification 7.1. Raises `ConfigError` for patterns that cannot be sampled.
        """
        c = self.block_length
        lengths = {
            AttentionPattern.DENSE: self.context,
            AttentionPattern.BLOCK: c,
            AttentionPattern.COLUMN: self.context,
            AttentionPattern.PREVIOUS_BLOCK: 2 * c,
            # Whole blocks, so that a chunk fits; one more block takes the writes beyond the prefix.
            AttentionPattern.PRIME: (math.ceil(self.prime_span / c) + 1) * c,
            AttentionPattern.CROSS: self.encoder_tokens,
        }
        if pattern not in lengths:
            raise ConfigError(f"attention pattern {pattern!s} can be trained but not sampled: it has no cache.")
        return lengths[pattern]


class LabelRules(StrEnum):
    """How names become ids (specification section 11)."""

    WORDS = "v2"  # normalised names; genres are bags of words
    NAMES = "v3"  # lower-cased names; one genre


@dataclass(frozen=True)
class TimingConfig:
    """Where in the song a window lies, as three bins (top level only)."""

    bins: int
    min_duration: float  # seconds of a whole song
    max_duration: float


@dataclass(frozen=True)
class LabelConfig:
    """Artist, genre and timing."""

    rules: LabelRules
    artists: int  # rows of the artist table
    genres: int  # rows of the genre table
    genre_slots: int  # genres per song; unused ones are -1
    timing: TimingConfig | None = None


@dataclass(frozen=True)
class LyricsConfig:
    """Lyric tokens of a window; in front of the music unless there is an encoder."""

    tokens: int  # per window, even
    vocabulary: int  # 80 in v2, 79 in v3
    loss_fraction: float = 0.4
    encoder: TransformerConfig | None = None
    alignment_layer: int | None = None
    alignment_head: int | None = None

    def __post_init__(self) -> None:
        _require(self.tokens > 0 and self.tokens % 2 == 0, f"lyrics: tokens must be even, found {self.tokens}.")
        if self.encoder is not None:
            found = self.encoder.context
            _require(found == self.tokens, f"lyrics: the encoder has {found} positions for {self.tokens} tokens.")


@dataclass(frozen=True)
class ConditionerConfig:
    """The upsampler's network from the codes one level above to conditioning rows."""

    width: int
    depth: int
    stages: int  # transposed convolutions: `downs` of the level above
    stride: int
    dilation_growth: int = 3
    dilation_cycle: int | None = 8
    convolution_ratio: float = 1.0
    scale_residual: bool = False

    @property
    def upsampling(self) -> int:
        """Codes of this level per code of the level above."""
        return int(self.stride**self.stages)


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
    merged_decoder: bool = False  # own output matrix, conditioning added once
    hop_fraction: float = 0.5  # new share of the next window

    def __post_init__(self) -> None:
        length = self.lyric_prefix + self.window
        found = self.transformer.context
        _require(found == length, f"prior {self.level}: the stack has {found} positions, lyrics and window {length}.")
        if self.conditioner:
            exact_division(self.window, self.conditioner.upsampling, f"prior {self.level}: window over upsampling")

    @property
    def lyric_prefix(self) -> int:
        """Lyric positions in front of the music, 0 with a separate encoder or without lyrics."""
        return self.lyrics.tokens if self.lyrics and self.lyrics.encoder is None else 0

    @property
    def code_shift(self) -> int:
        """What is added to a code to get its id in the shared vocabulary."""
        return self.lyrics.vocabulary if self.lyrics and self.lyrics.encoder is None else 0

    @property
    def bins(self) -> int:
        """Size of the vocabulary of the stack."""
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
        """Whether there are conditioning rows (timing or upper codes)."""
        return self.conditioner is not None or self.timing is not None

    @property
    def timing(self) -> TimingConfig | None:
        """Timing settings, for a labelled top prior."""
        return self.labels.timing if self.labels else None

    @property
    def hop(self) -> int:
        """Codes between the starts of two windows."""
        return int(self.hop_fraction * self.window)


@dataclass(frozen=True)
class JukeboxConfig:
    """A whole system. `priors` is level 0 first; it may be empty or hold only some levels."""

    name: str
    vqvae: VQVAEConfig
    priors: tuple[PriorConfig, ...] = field(default=())

    def __post_init__(self) -> None:
        levels = [prior.level for prior in self.priors]
        _require(levels == sorted(set(levels)), f"{self.name}: priors must be listed level 0 first, found {levels}.")
        for prior in self.priors:
            where = f"{self.name}: prior {prior.level}"
            found, size = prior.codebook_size, self.vqvae.codebook_size
            _require(0 <= prior.level < self.vqvae.levels, f"{where}: the VQ-VAE has {self.vqvae.levels} levels.")
            _require(found == size, f"{where} has {found} codes, the VQ-VAE {size}.")
            if prior.conditioner is not None:
                above = prior.level + 1
                _require(above < self.vqvae.levels, f"{where}: above the top level is nothing to be conditioned on.")
                factor, step = prior.conditioner.upsampling, self.vqvae.downsampling(above)
                _require(factor == step, f"{where} makes {factor} codes of an upper code, the VQ-VAE {step}.")

    def prior(self, level: int) -> PriorConfig:
        """The prior of a level; `ConfigError` if there is none."""
        for prior in self.priors:
            if prior.level == level:
                return prior
        raise ConfigError(f"{self.name} has no prior for level {level}; it has {[p.level for p in self.priors]}.")

    @property
    def top_level(self) -> int:
        """The coarsest level."""
        return self.vqvae.levels - 1
