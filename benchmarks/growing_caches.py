"""The baseline `eager`: a prior whose caches grow by concatenation, as in the original.

Every step appends its keys and values to the caches of each layer, and drops the positions that the layer's attention
pattern will not attend to again (specification 7.1). Projections, norms and the choice of codes are those of this
project's prior.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.benchmarks.sequential_prior import SequentialPrior

if TYPE_CHECKING:
    from torch import Tensor

    from jukebox_deploy.models.attention import AttentionGeometry
    from jukebox_deploy.models.cached_attention import KeyValue
    from jukebox_deploy.models.prior import Choice, Prior, StepResult, Window
    from jukebox_deploy.models.transformer import Caches, Layer


def kept_positions(pattern: AttentionPattern, geometry: AttentionGeometry, filled: int) -> int:
    """Return how many positions the cache of a layer holds after `filled` >= 1 positions (specification 7.1)."""
    block = geometry.block_length
    current = (filled - 1) % block + 1
    match pattern:
        case AttentionPattern.BLOCK:
            return current
        case AttentionPattern.PREVIOUS_BLOCK:
            return filled if filled <= block else block + current
        case AttentionPattern.PRIME:
            return min(filled, geometry.prime_span)
    return filled


class GrowingCachePrior(SequentialPrior):
    """A prior whose caches grow by concatenation."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior)
        self._caches: dict[int, KeyValue] = {}

    def _fill(self, position: int, slots: int) -> None:
        import torch

        from jukebox_deploy.models.cached_attention import KeyValue

        stack = self.prior.core.transformer
        self._caches = {}
        for index, layer in enumerate(stack.typed_layers()):
            pattern = layer.attention.pattern
            if position and pattern is not AttentionPattern.CROSS:
                width = layer.attention.output.weight.shape[0] // layer.attention.heads
                shape = (slots, layer.attention.heads, kept_positions(pattern, stack.geometry, position), width)
                device = layer.attention.output.weight.device
                # Written, not only allocated: reading pages that were never written costs no memory bandwidth.
                empty = (torch.empty(shape, dtype=stack.dtype, device=device) for _ in range(2))
                self._caches[index] = KeyValue(*(cache.fill_(0) for cache in empty))

    def _step(self, window: Window, choice: Choice) -> StepResult:
        from jukebox_deploy.models.prior import Entry

        rows, conditioning = self.prior.core.embed_window(window, window.position, 1)
        hidden = self._advance(rows, window.lyrics)[:, 0]
        newest = None if conditioning is None else conditioning[:, 0]
        return self.prior.leave_step(hidden, Entry(rows[:, 0], newest, window.position, {}), window, choice)

    def _prefill(self, window: Window, count: int) -> None:
        rows, _ = self.prior.core.embed_window(window, window.position, count)
        self._advance(rows, window.lyrics)

    def _advance(self, rows: Tensor, lyrics: Caches) -> Tensor:
        """Run new positions, all of one block, through the stack: rows `[B, Q, W]` -> `[B, Q, W]`."""
        stack = self.prior.core.transformer
        rows = rows.to(stack.dtype)
        for index, layer in enumerate(stack.typed_layers()):
            if layer.attention.pattern is AttentionPattern.CROSS:
                rows = layer.forward_cross(rows, lyrics[index])
            else:
                rows = self._advance_layer(index, layer, rows)
        return rows

    def _advance_layer(self, index: int, layer: Layer, rows: Tensor) -> Tensor:
        attention, geometry = layer.attention, self.prior.core.transformer.geometry
        query, new = attention.self_projections(layer.attention_norm(rows))
        cache = grow(self._caches.get(index), new, attention.pattern, geometry, self.filled)
        self._caches[index] = cache
        attended = attend_to_newest(attention.pattern, geometry, query, cache, self.filled)
        return layer.finish(rows, attention.merge(attended))


def grow(
    cache: KeyValue | None, new: KeyValue, pattern: AttentionPattern, geometry: AttentionGeometry, filled: int
) -> KeyValue:
    """Return the cache `[B, H, S, D]` with new keys and values appended, and unneeded positions dropped.

    `filled`: the number of positions before the new ones.
    """
    import torch

    from jukebox_deploy.models.cached_attention import KeyValue

    kept = kept_positions(pattern, geometry, filled + new.key.shape[2])
    if cache is None:
        grown = new
    elif pattern is AttentionPattern.PRIME and cache.key.shape[2] == kept:
        return cache
    else:
        grown = KeyValue(*(torch.cat(pair, dim=2) for pair in zip(cache, new, strict=True)))
    # The prime pattern attends to the lyrics, which are the first positions; the others need the newest ones.
    part = slice(0, kept) if pattern is AttentionPattern.PRIME else slice(-kept, None)
    return KeyValue(*(tensor[:, :, part] for tensor in grown))


def attend_to_newest(
    pattern: AttentionPattern, geometry: AttentionGeometry, query: Tensor, cache: KeyValue, first: int
) -> Tensor:
    """Compute the attention of the newest positions, `first` and the following, to a cache that includes them.

    Queries and result are `[B, H, Q, D]`.
    """
    import torch

    from jukebox_deploy.models.attention import attend, causal_mask

    block, queries = geometry.block_length, query.shape[2]
    if pattern is AttentionPattern.PREVIOUS_BLOCK:
        if first < block:
            return torch.zeros_like(query)
        return attend(query, cache.key[:, :, :block], cache.value[:, :, :block])
    if pattern is AttentionPattern.COLUMN:
        return _attend_to_columns(query, cache, first % block, block)
    visible = None
    if queries > 1:
        before = first % block if pattern is AttentionPattern.BLOCK else first
        visible = causal_mask(before + queries, cache.key.shape[2], query.device)[before:]
    return attend(query, cache.key, cache.value, visible)


def _attend_to_columns(query: Tensor, cache: KeyValue, offset: int, block: int) -> Tensor:
    """Compute the column pattern: each query attends to the positions with its own offset in all blocks.

    `offset`: of the first query in its block.
    """
    from torch.nn import functional as F

    from jukebox_deploy.models.attention import attend

    queries = query.shape[2]
    if queries == 1:
        return attend(query, cache.key[:, :, offset::block], cache.value[:, :, offset::block])
    padding = -cache.key.shape[2] % block
    columns = [F.pad(t, (0, 0, 0, padding)).unflatten(2, (-1, block)).transpose(2, 3)[:, :, :queries] for t in cache]
    return attend(query.unsqueeze(3), *columns).squeeze(3)
