"""Attention of new positions over key-value caches whose layout depends on the attention pattern.

A cache is `[B, H, S, D]` with a fixed `S` that suits its pattern (specification 7.1; docs/design.md, "Graphs"). It is
an input, is updated with the new keys or values at an index that depends on the position, and is returned in the same
memory. The same formulas serve a step (one query) and a prefill (the queries of one whole block); only the column
pattern views its cache in another shape while prefilling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.models.attention import AttentionGeometry, attention_weights


class KeyValue(NamedTuple):
    """The keys and values of one layer, `[B, H, S, D]` each."""

    key: Tensor
    value: Tensor


class Address(NamedTuple):
    """Which entries of the caches of one pattern the current positions of each slot write and read."""

    write: Tensor  # [B] index of the first entry to write
    row: Tensor | None = None  # [B, H] index of the cache section to read; None to read all of it
    visible: Tensor | None = None  # [B, 1, Q, R] entries that a query may attend to; None for all
    gate: Tensor | None = None  # [B, 1, 1, 1] false for slots that may not attend to anything


@torch.library.custom_op("jukebox_deploy::cache_update", mutates_args=())
def cache_update(past: Tensor, update: Tensor, index: Tensor) -> Tensor:
    """Return `past` `[B, H, S, D]` with `update` `[B, H, L, D]` written at `index` `[B]`: ONNX `TensorScatter`.

    This operator is used in exported graphs; eager code writes in place (`write_cache`).
    """
    return write_cache(past.clone(), update, index)


@cache_update.register_fake
def _(past: Tensor, update: Tensor, index: Tensor) -> Tensor:
    return torch.empty_like(past)


def write_cache(past: Tensor, update: Tensor, index: Tensor) -> Tensor:
    """Write `update` `[B, H, L, D]` into `past` `[B, H, S, D]` from entry `index` `[B]` on; return `past`.

    The result shares the memory of `past`, in eager code as in every engine.
    """
    # Under `torch.compile` of PyTorch 2.11, `is_exporting` is true as well.
    if torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling():
        return torch.ops.jukebox_deploy.cache_update(past, update, index)
    slots = torch.arange(past.shape[0], device=past.device)[:, None]
    entries = index[:, None] + torch.arange(update.shape[2], device=past.device)
    past[slots, :, entries] = update.transpose(1, 2)
    return past


class CachePattern(ABC):
    """Use of the cache by one attention pattern. `position` `[B]` is the first of the new positions."""

    def __init__(self, geometry: AttentionGeometry, heads: int) -> None:
        self.geometry = geometry
        self.heads = heads

    address_fields: tuple[str, ...] = ("write", "visible")
    """The fields of `Address` that this pattern uses."""

    @abstractmethod
    def locate(self, position: Tensor, queries: int) -> Address:
        """Return which entries the `queries` positions from `position` `[B]` on write and read."""

    def fold(self, tensor: Tensor) -> Tensor:
        """Reshape new keys, values or queries `[B, H, Q, D]` to the cache's layout."""
        return tensor

    def select(self, cache: Tensor, row: Tensor | None) -> Tensor:
        """Return the part of the cache that is read, `[B, H, R, D]`."""
        return cache

    def _causal(self, first: Tensor, queries: int, keys: int) -> Tensor:
        """Return a mask `[B, 1, Q, R]` that is true where entry `j <= first + i`."""
        last = first[:, None] + torch.arange(queries, device=first.device)
        return torch.arange(keys, device=first.device) <= last[:, None, :, None]

    def _select_row(self, cache: Tensor, rows: int, row: Tensor | None) -> Tensor:
        """Divide each head's cache into `rows` equal sections; return the one with index `row` `[B, H]`."""
        assert row is not None
        slots, heads, length, width = cache.shape
        return cache.reshape(slots * heads * rows, length // rows, width)[row]

    def _row(self, offset: Tensor, rows: int) -> Tensor:
        """Return the index `[B, H]` of section `offset` `[B]` of every head, counted over all slots and heads."""
        slots = torch.arange(offset.shape[0], device=offset.device)[:, None]
        pairs = slots * self.heads + torch.arange(self.heads, device=offset.device)
        return pairs * rows + offset[:, None]


class _DenseCache(CachePattern):
    """Cache of all positions, in order."""

    def locate(self, position: Tensor, queries: int) -> Address:
        return Address(position, visible=self._causal(position, queries, self.geometry.context))


class _BlockCache(CachePattern):
    """Cache of the current block."""

    def locate(self, position: Tensor, queries: int) -> Address:
        offset = position % self.geometry.block_length
        return Address(offset, visible=self._causal(offset, queries, self.geometry.block_length))


class _ColumnCache(CachePattern):
    """Cache of all positions, column by column, so that a step reads one contiguous section."""

    address_fields = ("write", "row", "visible")

    def locate(self, position: Tensor, queries: int) -> Address:
        c, m = self.geometry.block_length, self.geometry.block_count
        offset, block = position % c, position // c
        return Address(offset * m + block, self._row(offset, c), self._causal(block, 1, m))

    def select(self, cache: Tensor, row: Tensor | None) -> Tensor:
        return self._select_row(cache, self.geometry.block_length, row)


class _ColumnBlockCache(CachePattern):
    """The memory of `_ColumnCache` viewed as `[B, H*c, m, D]`: a block writes entry `block` of every column."""

    def locate(self, position: Tensor, queries: int) -> Address:
        block = position // self.geometry.block_length
        return Address(block, visible=self._causal(block, 1, self.geometry.block_count))

    def fold(self, tensor: Tensor) -> Tensor:
        return tensor.flatten(1, 2).unsqueeze(2)


class _PreviousBlockCache(CachePattern):
    """Ring buffer of two blocks: one is written, the other is read."""

    address_fields = ("write", "row", "gate")

    def locate(self, position: Tensor, queries: int) -> Address:
        c = self.geometry.block_length
        block = position // c
        # In block 0, the half to read still holds entries of the slot's last window.
        gate = (block > 0)[:, None, None, None]
        return Address(position % (2 * c), self._row((block + 1) % 2, 2), gate=gate)

    def select(self, cache: Tensor, row: Tensor | None) -> Tensor:
        return self._select_row(cache, 2, row)


class _PrimeCache(CachePattern):
    """Cache of the lyric prefix; later positions are written to an extra block at the end that is never read."""

    def locate(self, position: Tensor, queries: int) -> Address:
        c, span = self.geometry.block_length, self.geometry.prime_span
        unread = -(-span // c) * c
        write = torch.where(position < span, position, unread)
        return Address(write, visible=self._causal(position, queries, span))

    def select(self, cache: Tensor, row: Tensor | None) -> Tensor:
        return cache[:, :, : self.geometry.prime_span]


_STEP: dict[AttentionPattern, type[CachePattern]] = {
    AttentionPattern.DENSE: _DenseCache,
    AttentionPattern.BLOCK: _BlockCache,
    AttentionPattern.COLUMN: _ColumnCache,
    AttentionPattern.PREVIOUS_BLOCK: _PreviousBlockCache,
    AttentionPattern.PRIME: _PrimeCache,
}
_PREFILL = _STEP | {AttentionPattern.COLUMN: _ColumnBlockCache}


def cache_patterns(geometry: AttentionGeometry, heads: int, queries: int) -> dict[AttentionPattern, CachePattern]:
    """Return the cache patterns of a step (`queries` 1) or of a prefill (`queries` of a block)."""
    kinds = _STEP if queries == 1 else _PREFILL
    return {pattern: kind(geometry, heads) for pattern, kind in kinds.items()}


def cached_attention(
    pattern: CachePattern, address: Address, query: Tensor, new: KeyValue, past: KeyValue
) -> tuple[Tensor, KeyValue]:
    """Write the new keys and values, then attend; return the result `[B, H, Q, D]` and the updated caches."""
    present = KeyValue(*(write_cache(p, pattern.fold(n), address.write) for p, n in zip(past, new, strict=True)))
    key, value = (pattern.select(cache, address.row) for cache in present)
    weights = attention_weights(pattern.fold(query), key, address.visible)
    if address.gate is not None:
        # Applied to the weights and not to the result, so that engines fuse it into the kernel of the softmax.
        weights = torch.where(address.gate, weights, 0.0)
    result = weights.to(value.dtype) @ value
    return result if result.shape == query.shape else result.reshape(query.shape), present
