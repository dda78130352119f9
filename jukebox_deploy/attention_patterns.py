"""Attention patterns (which keys a query attends to) and the order in which the layers of a stack use them.

Pure arithmetic without torch, so that the graph declarations, the cost formulas and the engines can use it too.
Source: specification sections 5 to 7; paper section 5.1 ("factored attention").
"""

from __future__ import annotations

from enum import StrEnum


class AttentionPattern(StrEnum):
    """Set of the key positions `j` that the query at position `i` attends to.

    Blocks have length `c`, and `block(i) = i // c`.
    """

    DENSE = "dense"  # all j <= i
    BLOCK = "block"  # j <= i in the same block
    COLUMN = "column"  # j <= i at the same offset within their blocks
    PREVIOUS_BLOCK = "previous_block"  # all of block(i) - 1; none in block 0
    SUMMARY = "summary"  # a null key and the last position, if <= i, of every block but the final one
    SPREAD_SUMMARY = "spread_summary"  # the same with `spread` null keys and the last `spread` positions
    CROSS = "cross"  # all positions of the lyric encoder
    PRIME = "prime"  # j <= i within the lyric prefix


_BLOCK, _COLUMN, _PREVIOUS = AttentionPattern.BLOCK, AttentionPattern.COLUMN, AttentionPattern.PREVIOUS_BLOCK
_FACTORED = (_BLOCK, _COLUMN, _PREVIOUS)


class AttentionOrder(StrEnum):
    """Order in which the layers of a stack use the patterns (specification section 6).

    The number after each name is its `attn_order` in the original hyper-parameters.
    """

    DENSE = "dense"  # 0
    BLOCK_COLUMN = "block_column"  # 1
    FACTORED = "factored"  # 2: block, column, previous block, repeated
    BLOCK_SUMMARY = "block_summary"  # 3
    BLOCK_SPREAD_SUMMARY = "block_spread_summary"  # 4
    BLOCK_SUMMARY_TWO_BLOCKS = "block_summary_two_blocks"  # 5
    FACTORED_CROSS_EVERY_4 = "factored_cross_every_4"  # 6
    FACTORED_CROSS_EVERY_16 = "factored_cross_every_16"  # 7
    FACTORED_CROSS_EVERY_10 = "factored_cross_every_10"  # 8
    FACTORED_DENSE = "factored_dense"  # 9
    FACTORED_LATE_CROSS = "factored_late_cross"  # 10: nine layers, then cross every 10
    FACTORED_CROSS_AND_DENSE = "factored_cross_and_dense"  # 11
    FACTORED_PRIME_AND_DENSE = "factored_prime_and_dense"  # 12


_CYCLES: dict[AttentionOrder, tuple[AttentionPattern, ...]] = {
    AttentionOrder.DENSE: (AttentionPattern.DENSE,),
    AttentionOrder.BLOCK_COLUMN: (_BLOCK, _COLUMN),
    AttentionOrder.FACTORED: _FACTORED,
    AttentionOrder.BLOCK_SUMMARY: (_BLOCK, AttentionPattern.SUMMARY),
    AttentionOrder.BLOCK_SPREAD_SUMMARY: (_BLOCK, AttentionPattern.SPREAD_SUMMARY),
    AttentionOrder.BLOCK_SUMMARY_TWO_BLOCKS: (_BLOCK, AttentionPattern.SUMMARY, _BLOCK, _BLOCK),
    AttentionOrder.FACTORED_CROSS_EVERY_4: (*_FACTORED, AttentionPattern.CROSS),
    AttentionOrder.FACTORED_CROSS_EVERY_16: (*_FACTORED * 5, AttentionPattern.CROSS),
    AttentionOrder.FACTORED_CROSS_EVERY_10: (*_FACTORED * 3, AttentionPattern.CROSS),
    AttentionOrder.FACTORED_DENSE: (*_FACTORED, AttentionPattern.DENSE),
    AttentionOrder.FACTORED_LATE_CROSS: (*_FACTORED * 3, *(*_FACTORED * 3, AttentionPattern.CROSS) * 7),
}

_LYRIC_PATTERN = {
    AttentionOrder.FACTORED_CROSS_AND_DENSE: AttentionPattern.CROSS,
    AttentionOrder.FACTORED_PRIME_AND_DENSE: AttentionPattern.PRIME,
}


def layer_pattern(order: AttentionOrder, layer: int) -> AttentionPattern:
    """Return the pattern of one layer, counted from 0."""
    if order in _CYCLES:
        cycle = _CYCLES[order]
        return cycle[layer % len(cycle)]
    # Every 16th layer is dense or attends to the lyrics; the cycle continues as if it had its usual pattern.
    if layer % 16 != 15:
        return _FACTORED[layer % 3]
    return AttentionPattern.DENSE if layer % 3 == 2 else _LYRIC_PATTERN[order]


def layer_patterns(order: AttentionOrder, depth: int) -> tuple[AttentionPattern, ...]:
    """Return the patterns of all layers of a stack."""
    return tuple(layer_pattern(order, layer) for layer in range(depth))
