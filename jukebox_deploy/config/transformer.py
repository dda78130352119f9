"""Configuration of a stack of factored-attention layers (specification sections 4 to 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern, layer_patterns
from jukebox_deploy.config.checks import exact_division, require, require_at_least, require_finite
from jukebox_deploy.errors import ConfigError


@dataclass(frozen=True)
class TransformerConfig:
    """A stack of factored-attention layers and the sequence that it processes."""

    context: int  # positions, lyrics included where they share the sequence
    width: int
    depth: int
    heads: int
    order: AttentionOrder = AttentionOrder.DENSE
    blocks: int | None = None  # number of blocks, not their length
    attention_ratio: float = 0.25  # attention state width divided by width
    mlp_ratio: float = 1.0
    prime_tokens: int = 0  # lyric tokens at the start of the sequence (pattern "prime")
    encoder_tokens: int = 0  # lyric encoder positions (pattern "cross")
    spread: int = 1  # keys per block of the pattern "spread_summary"
    scale_residual: bool = False
    zero_output: bool = False  # output projections start at zero
    init_scale: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(
            1,
            "transformer",
            context=self.context,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            blocks=self.blocks,
            spread=self.spread,
        )
        require_at_least(0, "transformer", prime_tokens=self.prime_tokens, encoder_tokens=self.encoder_tokens)
        require_finite(
            "transformer", attention_ratio=self.attention_ratio, mlp_ratio=self.mlp_ratio, init_scale=self.init_scale
        )
        require(self.init_scale > 0, f"transformer: init_scale must be above 0, found {self.init_scale}.")
        require_at_least(1, "transformer", state_width=self.state_width, mlp_width=self.mlp_width)
        exact_division(self.state_width, self.heads, "transformer: attention state width over heads")
        if self.blocks is not None:
            exact_division(self.context, self.blocks, "transformer: context over blocks")
        elif self.order is not AttentionOrder.DENSE:
            raise ConfigError(f"transformer: attention order {self.order!s} needs a number of blocks.")
        if AttentionPattern.CROSS in self.patterns:
            require(self.encoder_tokens > 0, f"transformer: order {self.order!s} needs encoder_tokens.")
        if AttentionPattern.PRIME in self.patterns:
            require(self.prime_tokens > 0, f"transformer: order {self.order!s} needs prime_tokens.")

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
        """Number of blocks; for a dense stack without blocks, number of prefill chunks of at most 64 positions."""
        if self.blocks:
            return self.blocks
        return next(n for n in range(math.ceil(self.context / 64), self.context + 1) if self.context % n == 0)

    @property
    def block_length(self) -> int:
        """Positions per block, `c`; also the length of a prefill chunk."""
        return self.context // self.block_count

    @property
    def prime_span(self) -> int:
        """Number of keys that the pattern "prime" can see: a multiple of the *number* of blocks."""
        blocks = self.blocks or 1
        return (self.prime_tokens // blocks + 1) * blocks

    @property
    def patterns(self) -> tuple[AttentionPattern, ...]:
        """The attention pattern of every layer."""
        return layer_patterns(self.order, self.depth)

    def cache_length(self, pattern: AttentionPattern) -> int:
        """Return the length of a layer's KV cache, with room for entries that are written but never read.

        Source: specification 7.1. Raises `ConfigError` for patterns that cannot be sampled.
        """
        c = self.block_length
        lengths = {
            AttentionPattern.DENSE: self.context,
            AttentionPattern.BLOCK: c,
            AttentionPattern.COLUMN: self.context,
            AttentionPattern.PREVIOUS_BLOCK: 2 * c,
            # Whole blocks, so that a prefill chunk fits; one more block receives the writes beyond the prefix.
            AttentionPattern.PRIME: (math.ceil(self.prime_span / c) + 1) * c,
            AttentionPattern.CROSS: self.encoder_tokens,
        }
        if pattern not in lengths:
            raise ConfigError(f"attention pattern {pattern!s} can be trained but not sampled: it has no cache.")
        return lengths[pattern]
