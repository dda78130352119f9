"""Attention over whole sequences: one function per pattern, for training and as the reference for the cached form.

Queries and keys must each be scaled by `D ** -0.25` already: their product is then safe in half precision, while the
unscaled product can overflow (specification 4.3 and 17.1). Source: specification section 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from jukebox_deploy.attention_patterns import AttentionPattern

MASKED_SCORE = -1e9
"""Score of a masked key; its weight after a float32 softmax is exactly zero."""


@dataclass(frozen=True)
class AttentionGeometry:
    """Sizes that define the patterns. `block_length * block_count` is the context."""

    block_length: int  # c
    block_count: int  # m
    prime_span: int = 0  # number of keys that the pattern "prime" can attend to
    spread: int = 1  # keys per block of the pattern "spread summary"

    @property
    def context(self) -> int:
        """Number of positions of the sequence."""
        return self.block_length * self.block_count


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Compute softmax attention, `[..., Q, D]` over `[..., R, D]` -> `[..., Q, D]`, with the softmax in float32.

    `visible` is true where a query may attend to a key, broadcastable to `[..., Q, R]`.
    """
    return attention_weights(query, key, visible).to(value.dtype) @ value


def attention_weights(query: Tensor, key: Tensor, visible: Tensor | None = None) -> Tensor:
    """Compute the float32 weights `[..., Q, R]` of `attend`."""
    scores = (query @ key.transpose(-1, -2)).float()
    if visible is not None:
        scores = torch.where(visible, scores, MASKED_SCORE)
    return torch.softmax(scores, dim=-1)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """Return a mask `[Q, R]` that is true where key `j <= i`."""
    return torch.arange(keys, device=device) <= torch.arange(queries, device=device)[:, None]


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key, value, causal_mask(query.shape[-2], key.shape[-2], query.device))


def _dense(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    if query.requires_grad:
        # In training, the attention weights `[B, H, T, T]` would take too much memory to keep for the backward pass.
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
    return _causal(query, key, value)


def _split(tensor: Tensor, geometry: AttentionGeometry) -> Tensor:
    """`[B, H, T, D]` -> `[B, H, m, c, D]`."""
    return tensor.unflatten(2, (-1, geometry.block_length))


def _block(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    q, k, v = (_split(tensor, geometry) for tensor in (query, key, value))
    return _causal(q, k, v).flatten(2, 3)


def _column(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    q, k, v = (_split(tensor, geometry).transpose(2, 3) for tensor in (query, key, value))
    return _causal(q, k, v).transpose(2, 3).flatten(2, 3)


def _previous_block(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    # Block 0 attends to zero keys with zero values, inserted after the projections, so its result is zero.
    c = geometry.block_length
    k, v = (F.pad(tensor, (0, 0, c, 0))[:, :, :-c] for tensor in (key, value))
    return attend(_split(query, geometry), _split(k, geometry), _split(v, geometry)).flatten(2, 3)


def _summary(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    return _spread_summary(query, key, value, geometry, spread=1)


def _spread_summary(
    query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry, spread: int | None = None
) -> Tensor:
    spread = geometry.spread if spread is None else spread
    c, length = geometry.block_length, query.shape[-2]
    positions = torch.arange(length, device=query.device).view(-1, c)[: geometry.block_count - 1, -spread:].flatten()
    k, v = (F.pad(tensor.index_select(2, positions), (0, 0, spread, 0)) for tensor in (key, value))
    seen = positions <= torch.arange(length, device=query.device)[:, None]
    return attend(query, k, v, F.pad(seen, (spread, 0), value=True))


def _prime(query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry) -> Tensor:
    span = geometry.prime_span
    return _dense(query, key[:, :, :span], value[:, :, :span], geometry)


_FULL: dict[AttentionPattern, Callable[[Tensor, Tensor, Tensor, AttentionGeometry], Tensor]] = {
    AttentionPattern.DENSE: _dense,
    AttentionPattern.BLOCK: _block,
    AttentionPattern.COLUMN: _column,
    AttentionPattern.PREVIOUS_BLOCK: _previous_block,
    AttentionPattern.SUMMARY: _summary,
    AttentionPattern.SPREAD_SUMMARY: _spread_summary,
    AttentionPattern.PRIME: _prime,
}


def full_attention(
    pattern: AttentionPattern, query: Tensor, key: Tensor, value: Tensor, geometry: AttentionGeometry
) -> Tensor:
    """Compute self-attention of a whole sequence, `[B, H, T, D]` -> `[B, H, T, D]`, for any `T` up to the context."""
    length = query.shape[2]
    if padding := -length % geometry.block_length:
        # The padding comes after every real position, so no pattern lets a real query attend to it.
        query, key, value = (F.pad(tensor, (0, 0, 0, padding)) for tensor in (query, key, value))
    return _FULL[pattern](query, key, value, geometry)[:, :, :length]
