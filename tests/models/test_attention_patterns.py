"""The orders of attention functions (specification section 6) and the lengths of caches (7.1)."""

from __future__ import annotations

import pytest

from jukebox_deploy.attention_patterns import (
    AttentionOrder,
    AttentionPattern,
    layer_patterns,
)
from jukebox_deploy.config import TransformerConfig
from jukebox_deploy.config.checks import exact_division
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.presets import PRIOR_1B_LYRICS, PRIOR_5B, PRIOR_5B_LYRICS, RELEASED_UPSAMPLERS
from tests.models.oracle_names import ORDER_NUMBERS

NUMBERS = {pattern: number for number, pattern in enumerate(AttentionPattern)}
CYCLES = {
    0: "0",
    1: "12",
    2: "123",
    3: "14",
    4: "15",
    5: "1411",
    6: "1236",
    7: "123" * 5 + "6",
    8: "123" * 3 + "6",
    9: "1230",
    10: "123" * 3 + ("123" * 3 + "6") * 7,
}


def numbers(order: int, depth: int) -> list[int]:
    return [NUMBERS[pattern] for pattern in layer_patterns(ORDER_NUMBERS[order], depth)]


def layers_with(order: int, depth: int, function: int) -> list[int]:
    return [layer for layer, number in enumerate(numbers(order, depth)) if number == function]


def test_numbers_are_the_original_s():
    names = ["dense", "block", "column", "previous_block", "summary", "spread_summary", "cross", "prime"]
    assert [str(pattern) for pattern in AttentionPattern] == names
    assert sorted(ORDER_NUMBERS) == list(range(13))
    assert ORDER_NUMBERS[2] is AttentionOrder.FACTORED
    assert ORDER_NUMBERS[10] is AttentionOrder.FACTORED_LATE_CROSS
    assert ORDER_NUMBERS[12] is AttentionOrder.FACTORED_PRIME_AND_DENSE


@pytest.mark.parametrize("order", CYCLES)
def test_orders_that_repeat(order):
    cycle = [int(digit) for digit in CYCLES[order]]
    assert numbers(order, 200) == (cycle * 200)[:200]


@pytest.mark.parametrize(("order", "lyrics"), [(11, 6), (12, 7)])
def test_special_layers_replace_their_layer_of_the_cycle(order, lyrics):
    expected = [(lyrics, lyrics, 0)[i % 3] if i % 16 == 15 else (1, 2, 3)[i % 3] for i in range(200)]
    assert numbers(order, 200) == expected


@pytest.mark.parametrize(
    ("order", "depth", "special", "counts"),
    [
        (2, 72, {}, (24, 24, 24)),
        (2, 18, {}, (6, 6, 6)),
        (8, 50, {6: [9, 19, 29, 39, 49]}, (15, 15, 15)),
        (10, 79, {6: [18, 28, 38, 48, 58, 68, 78]}, (24, 24, 24)),
        (12, 72, {7: [15, 31, 63], 0: [47]}, (22, 23, 23)),
        (12, 48, {7: [15, 31], 0: [47]}, (15, 15, 15)),
    ],
)
def test_layers_of_the_released_and_small_models(order, depth, special, counts):
    for function in (0, 4, 5, 6, 7):
        assert layers_with(order, depth, function) == special.get(function, [])
    assert tuple(len(layers_with(order, depth, function)) for function in (1, 2, 3)) == counts


def test_presets_have_the_orders_of_the_released_models():
    alignment = {}
    for prior, order, depth in (
        (PRIOR_5B, 2, 72),
        (PRIOR_5B_LYRICS, 10, 79),
        (PRIOR_1B_LYRICS, 12, 72),
        *((upsampler, 2, 72) for upsampler in RELEASED_UPSAMPLERS),
    ):
        assert prior.transformer.patterns == layer_patterns(ORDER_NUMBERS[order], depth)
        if prior.lyrics:
            layer = prior.lyrics.alignment_layer
            assert layer is not None
            alignment[layer] = (prior.transformer.patterns[layer], prior.lyrics.alignment_head)
    assert alignment == {63: (AttentionPattern.PRIME, 0), 68: (AttentionPattern.CROSS, 2)}


def test_the_prime_span_counts_in_numbers_of_blocks():
    assert PRIOR_1B_LYRICS.transformer.prime_span == 448
    assert PRIOR_1B_LYRICS.transformer.block_length == 102
    for prime, span in ((20, 24), (24, 36), (11, 12), (12, 24)):
        assert TransformerConfig(96, 8, 1, 1, blocks=12, prime_tokens=prime).prime_span == span


def test_caches_are_as_long_as_they_must_be():
    """The original's longest caches (7.1); the prime cache has whole blocks, and one for writes nobody reads."""
    stack = PRIOR_1B_LYRICS.transformer
    lengths = {"dense": 6528, "block": 102, "column": 6528, "previous_block": 204, "prime": 6 * 102}
    assert {str(p): stack.cache_length(p) for p in map(AttentionPattern, lengths)} == lengths
    assert PRIOR_5B_LYRICS.transformer.cache_length(AttentionPattern.CROSS) == 512
    for pattern in (AttentionPattern.SUMMARY, AttentionPattern.SPREAD_SUMMARY):
        with pytest.raises(ConfigError, match="no cache"):
            stack.cache_length(pattern)


def test_divisions_must_be_exact():
    assert exact_division(12, 4, "twelve") == 3
    with pytest.raises(ConfigError, match="twelve: 12 is not a multiple of 5"):
        exact_division(12, 5, "twelve")
    with pytest.raises(ConfigError, match="needs a number of blocks"):
        TransformerConfig(96, 8, 3, 1, AttentionOrder.FACTORED)
