"""Every attention function: values of the original, exact key sets through gradients, and caches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern
from jukebox_deploy.config import TransformerConfig
from jukebox_deploy.models.attention import AttentionGeometry, attend, causal_mask, full_attention
from jukebox_deploy.models.cached_attention import KeyValue, cache_patterns, cached_attention
from jukebox_deploy.models.transformer import Attention
from tests.models.oracle_names import load_golden
from tests.models.oracle_priors import settings

FUNCTIONS = dict(enumerate(AttentionPattern))
"""The numbers of the original's functions (specification section 5)."""

CACHED = [pattern for pattern in AttentionPattern if "summary" not in pattern and pattern is not AttentionPattern.CROSS]


def geometry_of(block_length: int, blocks: int, prime_tokens: int = 1, spread: int = 1) -> AttentionGeometry:
    span = TransformerConfig(block_length * blocks, 8, 1, 1, blocks=blocks, prime_tokens=prime_tokens).prime_span
    return AttentionGeometry(block_length, blocks, span, spread)


GEOMETRIES = {
    "8x12, prime 20": geometry_of(8, 12, 20, spread=3),
    "8x12, prime 24": geometry_of(8, 12, 24, spread=2),  # a multiple of the number of blocks
    "15x8, prime 24": geometry_of(15, 8, 24, spread=4),  # 24 = 3 * 8: a multiple again
    "15x8, prime 29": geometry_of(15, 8, 29),
    "10x9, prime 30": geometry_of(10, 9, 30, spread=5),
    "10x9, prime 18": geometry_of(10, 9, 18),
}


@pytest.fixture(params=list(GEOMETRIES.values()), ids=list(GEOMETRIES))
def geometry(request) -> AttentionGeometry:
    return request.param


def keys_of(pattern: AttentionPattern, i: int, g: AttentionGeometry) -> set[int]:
    """The table of section 5, written down once more, one query at a time."""
    c, before = g.block_length, range(i + 1)
    spread = 1 if pattern is AttentionPattern.SUMMARY else g.spread
    ends = [b * c + c - s for b in range(g.block_count - 1) for s in range(1, spread + 1)]
    table = {
        AttentionPattern.DENSE: set(before),
        AttentionPattern.BLOCK: {j for j in before if j // c == i // c},
        AttentionPattern.COLUMN: {j for j in before if j % c == i % c},
        AttentionPattern.PREVIOUS_BLOCK: {j for j in before if j // c == i // c - 1},
        AttentionPattern.SUMMARY: {j for j in ends if j <= i},
        AttentionPattern.SPREAD_SUMMARY: {j for j in ends if j <= i},
        AttentionPattern.PRIME: {j for j in before if j < g.prime_span},
    }
    return table[pattern]


def influence(function, given: torch.Tensor) -> np.ndarray:
    """`[outputs, inputs]`: whether a row of `given` `[inputs, width]` moves a row of the result, by gradient."""
    mixed = torch.autograd.functional.jacobian(lambda x: function(x) @ _mixture(function(given).shape[-1]), given)
    return (mixed.abs().amax(dim=2) > 0).numpy()


def _mixture(width: int) -> torch.Tensor:
    """A direction in which no two influences cancel."""
    return torch.randn(width, generator=torch.Generator().manual_seed(3))


def random_tensors(
    length: int, heads: int = 2, width: int = 4, batch: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    query, key, value = (torch.randn(batch, heads, length, width, generator=generator) for _ in range(3))
    return query, key, value


# --- values of the original -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    return load_golden("attn_funcs.npz")


def original_attention(golden, function: int) -> tuple[Attention, AttentionGeometry]:
    """The module with the original's weights."""
    given, pattern = settings(golden), FUNCTIONS[function]
    attention = Attention(given["n_in"], given["n_state"], given["n_head"], pattern, 0.1, 0.1, torch.float32)
    names = {"c_enc_kv": "encoder_key_value", "c_proj": "output"}
    names["c_attn"] = "query" if pattern is AttentionPattern.CROSS else "query_key_value"
    weights = {k.removeprefix(f"sd/{function}/"): v for k, v in golden.items() if k.startswith(f"sd/{function}/")}
    parts = {"w": "weight", "b": "bias"}
    renamed = {f"{names[k[:-2]]}.{parts[k[-1]]}": torch.from_numpy(v) for k, v in weights.items()}
    attention.load_state_dict(renamed)
    geometry = geometry_of(given["block_ctx"], given["blocks"], given["prime_len"], given["spread"])
    return attention.requires_grad_(False), geometry


def assert_original(golden, function: int, found: torch.Tensor) -> None:
    key = f"out/{function}/full_eval"
    step = settings(golden)["row_steps"].get(key, 1)
    np.testing.assert_allclose(found[:, ::step], golden[key], atol=1e-5 * np.abs(golden[key]).max())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_whole_sequences_match_the_original(golden, function):
    attention, geometry = original_attention(golden, function)
    states = torch.from_numpy(golden["in/encoder_kv"])
    assert_original(golden, function, attention(torch.from_numpy(golden["in/x"]), geometry, states))


@pytest.mark.parametrize("function", [n for n, pattern in FUNCTIONS.items() if pattern in CACHED])
@pytest.mark.parametrize("prefilled", [0, 8, 64, 96], ids=lambda n: f"prefill-{n}")
def test_cached_runs_match_the_original(golden, function, prefilled):
    attention, geometry = original_attention(golden, function)
    query, new = attention.self_projections(torch.from_numpy(golden["in/x"]))
    caches = stale_caches(attention.pattern, geometry, query.shape)
    result = run_cached(attention.pattern, geometry, (query, *new), caches, prefilled)
    assert_original(golden, function, attention.merge(result))


def test_cross_attention_of_one_position_matches_the_original(golden):
    attention, _ = original_attention(golden, 6)
    lyrics = attention.cross_key_value(torch.from_numpy(golden["in/encoder_kv"]))
    rows = torch.from_numpy(golden["in/x"])
    steps = [attend(attention.cross_query(rows[:, i : i + 1]), *lyrics) for i in range(rows.shape[1])]
    assert_original(golden, 6, attention.merge(torch.cat(steps, dim=2)))


@pytest.mark.parametrize("function", [n for n, pattern in FUNCTIONS.items() if pattern is not AttentionPattern.CROSS])
def test_influence_of_inputs_is_the_original_s(golden, function):
    """Through query, key and value together: which positions of the input move which of the output."""
    attention, geometry = original_attention(golden, function)
    rows = torch.from_numpy(golden["in/x"])[0]
    found = influence(lambda x: attention(x[None], geometry, None)[0], rows)
    expected = np.unpackbits(golden[f"out/{function}/adjacency_incl_query"], axis=-1).astype(bool)
    np.testing.assert_array_equal(found, expected)
    assert not np.triu(found, 1).any()  # causal


def test_cross_attention_sees_all_lyrics_and_no_other_position(golden):
    attention, geometry = original_attention(golden, 6)
    rows, states = (torch.from_numpy(golden[f"in/{name}"])[0] for name in ("x", "encoder_kv"))
    assert influence(lambda s: attention(rows[None], geometry, s[None])[0], states).all()
    found = influence(lambda x: attention(x[None], geometry, states[None])[0], rows)
    np.testing.assert_array_equal(found, np.eye(len(rows), dtype=bool))


@pytest.mark.parametrize("function", [n for n, pattern in FUNCTIONS.items() if pattern in CACHED])
def test_caches_hold_what_the_original_keeps(golden, function):
    _, geometry = original_attention(golden, function)
    longest = int(golden[f"out/{function}/cache_len_step"].max())
    spare = geometry.block_length if FUNCTIONS[function] is AttentionPattern.PRIME else 0
    assert cache_shape(FUNCTIONS[function], geometry) == longest + spare


# --- exact key sets, through gradients ------------------------------------------------------------


@pytest.mark.parametrize("pattern", [p for p in AttentionPattern if p is not AttentionPattern.CROSS])
def test_keys_are_those_of_the_table(pattern, geometry):
    query, key, value = random_tensors(geometry.context, heads=1, width=2)
    found = influence(lambda v: full_attention(pattern, query, key, v[None, None], geometry)[0, 0], value[0, 0])
    for i, row in enumerate(found):
        assert set(np.flatnonzero(row)) == keys_of(pattern, i, geometry), f"query {i}"


def test_scores_use_the_same_keys_as_values(geometry):
    """A key that is seen alone has no say; all others have."""
    query, key, value = random_tensors(geometry.context, heads=1, width=2)
    for pattern in (AttentionPattern.DENSE, AttentionPattern.COLUMN, AttentionPattern.PREVIOUS_BLOCK):

        def attended(k: torch.Tensor, pattern: AttentionPattern = pattern) -> torch.Tensor:
            return full_attention(pattern, query, k[None, None], value, geometry)[0, 0]

        for i, row in enumerate(influence(attended, key[0, 0])):
            keys = keys_of(pattern, i, geometry)
            assert set(np.flatnonzero(row)) == (keys if len(keys) > 1 else set()), f"{pattern}, query {i}"


def test_summaries_see_null_keys(geometry):
    """Their weights count: with one real key of score 0 the value is shared with the null keys."""
    length, c = geometry.context, geometry.block_length
    query, value = torch.zeros(1, 1, length, 2), torch.ones(1, 1, length, 2)
    for pattern, spread in ((AttentionPattern.SUMMARY, 1), (AttentionPattern.SPREAD_SUMMARY, geometry.spread)):
        result = full_attention(pattern, query, query, value, geometry)[0, 0, :, 0]
        assert result[0] == 0
        assert float(result[c]) == pytest.approx(spread / (2 * spread))


def test_the_first_block_has_no_previous_one(geometry):
    result = full_attention(AttentionPattern.PREVIOUS_BLOCK, *random_tensors(geometry.context), geometry)
    assert not result[:, :, : geometry.block_length].any()
    assert result[:, :, geometry.block_length :].any()


@pytest.mark.parametrize("pattern", [p for p in AttentionPattern if p is not AttentionPattern.CROSS])
def test_shorter_sequences_of_any_length(pattern, geometry):
    """A beginning of a sequence gives the beginning of the result, also in the middle of a block."""
    tensors = random_tensors(geometry.context)
    whole = full_attention(pattern, *tensors, geometry)
    for length in (1, geometry.block_length, 2 * geometry.block_length + 3, geometry.context - 1):
        query, key, value = (tensor[:, :, :length] for tensor in tensors)
        part = full_attention(pattern, query, key, value, geometry)
        torch.testing.assert_close(part, whole[:, :, :length], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pattern", [AttentionPattern.DENSE, AttentionPattern.PRIME])
@pytest.mark.parametrize("length", [5, 24])
def test_gradients_without_the_weights_in_memory_are_the_same(pattern, length):
    """Where gradients flow, these patterns never hold their `[T, T]` weights."""
    geometry = geometry_of(8, 3, prime_tokens=6)
    inputs, (query, key, value) = random_tensors(length, batch=2), random_tensors(length, batch=2)
    for tensor in (*inputs, query, key, value):
        tensor.requires_grad_()
    found = full_attention(pattern, *inputs, geometry)
    span = geometry.prime_span if pattern is AttentionPattern.PRIME else length
    visible = causal_mask(length, min(span, length), query.device)
    expected = attend(query, key[:, :, :span], value[:, :, :span], visible)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for result in (found, expected):
        (result * torch.arange(length)[:, None]).square().sum().backward()
    for mine, theirs in zip(inputs, (query, key, value), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-3)


# --- caches ---------------------------------------------------------------------------------------


def cache_shape(pattern: AttentionPattern, geometry: AttentionGeometry) -> int:
    """Entries of a cache, as the configuration gives them to every engine."""
    config = TransformerConfig(geometry.context, 8, 1, 1, AttentionOrder.DENSE, blocks=geometry.block_count)
    if pattern is AttentionPattern.PRIME:
        return (-(-geometry.prime_span // geometry.block_length) + 1) * geometry.block_length
    return config.cache_length(pattern)


def stale_caches(pattern: AttentionPattern, geometry: AttentionGeometry, shape: torch.Size) -> KeyValue:
    """What another song left: large random numbers."""
    generator = torch.Generator().manual_seed(5)
    size = (shape[0], shape[1], cache_shape(pattern, geometry), shape[3])
    return KeyValue(*(100 * torch.randn(size, generator=generator) for _ in range(2)))


def run_cached(pattern, geometry, tensors, caches: KeyValue, prefilled: int) -> torch.Tensor:
    """Work through a sequence `[B, H, T, D]`: whole blocks up to `prefilled`, then single positions."""
    results, position, length = [], 0, tensors[0].shape[2]
    batch, heads, _, width = tensors[0].shape
    while position < length:
        queries = geometry.block_length if position < prefilled else 1
        cache = cache_patterns(geometry, heads, queries)[pattern]
        query, key, value = (tensor[:, :, position : position + queries] for tensor in tensors)
        views = caches
        if pattern is AttentionPattern.COLUMN and queries > 1:  # the same memory in the prefill's shape
            shape = (batch, heads * geometry.block_length, geometry.block_count, width)
            views = KeyValue(*(tensor.view(shape) for tensor in caches))
        address = cache.locate(torch.full((batch,), position), queries)
        result, _ = cached_attention(cache, address, query, KeyValue(key, value), views)
        results.append(result)
        position += queries
    return torch.cat(results, dim=2)


@pytest.mark.parametrize("pattern", CACHED)
def test_steps_and_prefills_over_stale_caches_match_whole_sequences(pattern, geometry):
    tensors = random_tensors(geometry.context)
    whole = full_attention(pattern, *tensors, geometry)
    for blocks in (0, 1, 2, geometry.block_count - 1, geometry.block_count):
        caches = stale_caches(pattern, geometry, whole.shape)
        result = run_cached(pattern, geometry, tensors, caches, blocks * geometry.block_length)
        torch.testing.assert_close(result, whole, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("pattern", CACHED)
def test_slots_at_different_positions_share_a_batch(pattern, geometry):
    """Slots 1 and 2 begin later, again and again: each begins anew on what it holds."""
    slots, length = 3, geometry.context
    tensors = random_tensors(length, batch=slots)
    whole = full_attention(pattern, *tensors, geometry)
    cache = cache_patterns(geometry, 2, 1)[pattern]
    caches = stale_caches(pattern, geometry, whole.shape)
    delay = torch.tensor([0, 5, geometry.block_length + 1])
    rows = torch.arange(slots)
    for time in range(2 * length):
        position = (time - delay).clamp(min=0) % length
        query, key, value = (tensor[rows, :, position][:, :, None] for tensor in tensors)
        result, _ = cached_attention(cache, cache.locate(position, 1), query, KeyValue(key, value), caches)
        torch.testing.assert_close(result[:, :, 0], whole[rows, :, position], atol=2e-6, rtol=1e-5)


def test_a_cache_that_is_not_gated_would_show_what_a_slot_held_before(geometry):
    """The test above can fail: without the gate, block 0 sees the previous block of another song."""
    pattern = AttentionPattern.PREVIOUS_BLOCK
    tensors = random_tensors(geometry.context)
    cache = cache_patterns(geometry, 2, 1)[pattern]
    caches = stale_caches(pattern, geometry, tensors[0].shape)
    query, key, value = (tensor[:, :, :1] for tensor in tensors)
    address = cache.locate(torch.zeros(1, dtype=torch.long), 1)
    result, _ = cached_attention(cache, address._replace(gate=None), query, KeyValue(key, value), caches)
    assert result.abs().max() > 1
