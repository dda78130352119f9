"""Steps over caches, prefills in chunks and the full forward agree, for every order that can be sampled."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionPattern, layer_patterns
from jukebox_deploy.config import LabelConfig, LabelRules, LyricsConfig, PriorConfig, TimingConfig, TransformerConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.eager.engine import EagerSession
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.graphs import GraphOptions, declare_step
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from tests.models.cached_windows import SlotRunner, SlotWindow, fill_caches_with_garbage, open_session, run_windows
from tests.models.oracle_names import ORDER_NUMBERS

DEPTHS = {0: 2, 1: 4, 2: 6, 6: 8, 7: 16, 8: 10, 9: 4, 10: 19, 11: 16, 12: 16}
"""Deep enough for every pattern of the order but the dense one of 11 and 12, which comes with layer 47."""

GEOMETRIES = [(8, 5), (5, 9), (7, 6)]
"""Block length and number of blocks."""

CODES = 20
LABELS = LabelConfig(LabelRules.NAMES, 5, 5, 1, TimingConfig(4, 1.0, 2.0))


def small_config(
    number: int, block_length: int, blocks: int, lyric_tokens: int = 0, depth: int | None = None
) -> PriorConfig:
    """A small prior of an order; with lyrics as far as the order looks at them."""
    order, depth = ORDER_NUMBERS[number], depth or DEPTHS[number]
    patterns = layer_patterns(order, depth)
    lyrics, prime, cross = None, 0, 0
    if AttentionPattern.CROSS in patterns:
        encoder = TransformerConfig(6, 16, 3, 2, ORDER_NUMBERS[2], blocks=2)
        lyrics, cross = LyricsConfig(6, 12, encoder=encoder), 6
    elif AttentionPattern.PRIME in patterns:
        lyrics, prime = LyricsConfig(lyric_tokens, 12), lyric_tokens
    context = block_length * blocks
    stack = TransformerConfig(context, 16, depth, 2, order, blocks, 0.5, 1.0, prime_tokens=prime, encoder_tokens=cross)
    labels = LABELS if number % 2 == 0 else None
    return PriorConfig(2, context - prime, CODES, stack, labels, lyrics, merged_decoder=number in (1, 2, 10))


def random_prior(config: PriorConfig, precision: Precision = Precision.FP32, seed: int = 0) -> Prior:
    """All weights random, also those that start at zero, and large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    prior = build_prior(config, precision).eval().requires_grad_(False)
    for name, parameter in prior.named_parameters():
        inputs = parameter.shape[0] if name.endswith("weight") and parameter.ndim == 2 else 10
        spread = 1.0 if "embedding" in name or "labels" in name or "start" in name else inputs**-0.5
        value = spread * torch.randn(parameter.shape, generator=generator)
        parameter.copy_(value + 1 if "norm.weight" in name else value)
    return prior


def random_inputs(
    config: PriorConfig, prior: Prior, batch: int
) -> tuple[torch.Tensor, list[dict[str, np.ndarray]], torch.Tensor]:
    """Ids `[B, n]`, the slots' conditioning by name, and the logits `[B, n, V]` of a full forward."""
    generator = torch.Generator().manual_seed(1)
    context = config.transformer.context

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    ids = torch.randint(config.bins, (batch, context), generator=generator)
    named: dict[str, torch.Tensor] = {}
    if config.labels:
        named["start"] = random(batch, config.transformer.width)
    if config.has_conditioning:
        named["conditioning"] = random(batch, context, config.transformer.width)
    states = None
    if prior.lyric_encoder is not None:
        lyrics = torch.randint(12, (batch, 6), generator=generator)
        states = prior.lyric_encoder(lyrics)
        for layer, cache in prior.encode_lyrics(lyrics).items():
            named |= {f"cross_key_{layer}": cache.key, f"cross_value_{layer}": cache.value}
    logits = prior(ids, named.get("start"), named.get("conditioning"), states)
    return ids, [{name: tensor[i].numpy() for name, tensor in named.items()} for i in range(batch)], logits


def step_all(session: EagerSession, slots: list[SlotRunner]) -> None:
    """One step of the session, noted by every slot."""
    session.step(1)
    for slot in slots:
        slot.stepped()


def assert_logits(slot: SlotRunner, expected: np.ndarray, positions: range) -> None:
    """The steps' logits are those of the full forward at these positions, and there are no others."""
    assert sorted(slot.logits) == list(positions)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(slot.result().logits_of(positions), expected[positions], atol=1e-5 * scale)


CASES = [
    *((number, *geometry) for number in DEPTHS if number != 12 for geometry in GEOMETRIES[: 3 if number < 7 else 1]),
    *((number, *GEOMETRIES[1 + number % 2]) for number in (7, 8, 9, 10, 11)),
    # Lyrics that are and are not multiples of the number of blocks, and of the block length.
    *((12, *geometry, lyrics) for geometry, lyrics in zip(GEOMETRIES, (10, 18, 14), strict=True)),
    (12, 8, 5, 8),
    (11, 5, 4, 0, 48),
    (12, 5, 4, 6, 48),
]
"""Arguments of `small_config`."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_steps_prefills_and_full_forward_agree(case):
    """Three slots out of phase over stale caches: one from nothing, one after an unaligned prefill, one restarted."""
    config = small_config(*case)
    prior = random_prior(config)
    ids, tensors, logits = random_inputs(config, prior, batch=4)
    session = open_session(config, prior, slots=3)
    fill_caches_with_garbage(session)
    context, chunk = config.transformer.context, config.transformer.block_length

    def window(song: int, prefilled: int, end: int) -> SlotWindow:
        return SlotWindow(ids[song, :end].numpy(), end, tensors[song], prefilled)

    slots = [SlotRunner(session, config, index) for index in range(3)]
    unaligned, aligned = 2 * chunk + 3, context - chunk
    loads = {0: (0, window(0, 0, context)), 4: (1, window(1, unaligned, context)), 9: (2, window(2, 1, chunk + 2))}
    for step in itertools.count():
        if step in loads:
            index, loaded = loads[step]
            slots[index].load(loaded)
        elif step > max(loads) and all(slot.idle for slot in slots):
            break
        step_all(session, slots)
    assert_logits(slots[0], logits[0].numpy(), range(context))
    assert_logits(slots[1], logits[1].numpy(), range(unaligned, context))
    assert_logits(slots[2], logits[2].numpy(), range(1, chunk + 2))
    # The slots begin again on what they hold by now, one of them with all but one block prefilled.
    again = [window(3, aligned, context), window(2, 0, context), window(1, context - 1, context)]
    for slot, loaded in zip(slots, again, strict=True):
        slot.load(loaded)
    for _ in range(context):
        step_all(session, slots)
    assert_logits(slots[0], logits[3].numpy(), range(aligned, context))
    assert_logits(slots[1], logits[2].numpy(), range(context))
    assert_logits(slots[2], logits[1].numpy(), range(context - 1, context))


def test_the_cases_reach_every_pattern_and_beyond_the_prime_span():
    seen = set()
    for case in CASES:
        stack = small_config(*case).transformer
        seen |= set(stack.patterns)
        if stack.prime_tokens:
            assert stack.prime_tokens < stack.prime_span < stack.context - stack.block_length
    assert seen == set(AttentionPattern) - {AttentionPattern.SUMMARY, AttentionPattern.SPREAD_SUMMARY}


def test_greedy_steps_and_prefilled_steps_choose_the_same_codes():
    config = small_config(12, 8, 5, 10)
    prior = random_prior(config)
    ids, tensors, _ = random_inputs(config, prior, batch=1)
    whole = run_windows(open_session(config, prior, 1), config, [SlotWindow(ids[0, :10].numpy(), 40, tensors[0], 0)])
    for known in (10, 16, 17, 39):
        session = open_session(config, prior, 1)
        fill_caches_with_garbage(session)
        rest = run_windows(session, config, [SlotWindow(whole[0].ids[:known], 40, tensors[0])])
        np.testing.assert_array_equal(rest[0].ids, whole[0].ids)


def test_idle_slots_stay_as_they_are():
    """A slot at its window's end keeps codes and position while the others go on."""
    config = small_config(2, 8, 5)
    prior = random_prior(config)
    ids, tensors, _ = random_inputs(config, prior, batch=2)
    session = open_session(config, prior, 2)
    windows = [SlotWindow(ids[i, :5].numpy(), end, tensors[i]) for i, end in enumerate((7, 40))]
    run_windows(session, config, windows)
    before = session.read("codes", 0)
    session.step(3)
    np.testing.assert_array_equal(session.read("codes", 0), before)
    assert session.read("position", 0) == 7
    np.testing.assert_array_equal(before[7:], 0)


def test_a_logit_that_is_not_a_number_is_told_for_its_slot_alone():
    config = small_config(2, 8, 5)
    prior = random_prior(config)
    ids, tensors, _ = random_inputs(config, prior, batch=2)
    session = open_session(config, prior, 2)
    broken: Mapping[str, np.ndarray] = {**tensors[1], "conditioning": np.full_like(tensors[1]["conditioning"], np.nan)}
    run_windows(session, config, [SlotWindow(ids[i, :3].numpy(), 6, (tensors[0], broken)[i]) for i in range(2)])
    assert [bool(session.read("not_finite", slot)) for slot in range(2)] == [False, True]


@pytest.mark.parametrize("number", [3, 4, 5])
def test_orders_with_summaries_cannot_be_sampled(number):
    stack = TransformerConfig(40, 16, 4, 2, ORDER_NUMBERS[number], blocks=5)
    config = PriorConfig(0, 40, CODES, stack)
    assert build_prior(config)(torch.zeros(1, 40, dtype=torch.long)).shape == (1, 40, CODES)  # but trained
    with pytest.raises(ConfigError, match="can be trained but not sampled"):
        declare_step(config, GraphOptions())


HEAD_480 = TransformerConfig(16, 1920, 3, 1, ORDER_NUMBERS[2], blocks=4)  # as the released upsamplers'


def test_half_precision_survives_products_that_would_overflow():
    """With a head of 480 the plain product of query and key leaves half precision; ours is scaled before."""
    config = PriorConfig(0, 16, CODES, HEAD_480, replace(LABELS, timing=None))
    exact = random_prior(config)
    for layer in exact.core.transformer.typed_layers():
        projection = layer.attention.query_key_value
        projection.weight[:, :960] *= 40  # so large that products exceed 65504
    halves = build_prior(config, Precision.FP16).eval().requires_grad_(False)
    halves.load_state_dict(exact.state_dict())
    ids, tensors, logits = random_inputs(config, exact, batch=1)

    rows = exact.core.embed(ids, torch.from_numpy(tensors[0]["start"])[None], None)
    layer = exact.core.transformer.typed_layers()[0]
    query, new = layer.attention.self_projections(layer.attention_norm(rows))
    plain = (query @ new.key.transpose(-1, -2)) * 480**0.5
    assert plain.abs().max() > torch.finfo(torch.float16).max  # what the original would have to hold

    session = open_session(config, halves, 1, Precision.FP16)
    (run,) = run_windows(session, config, [SlotWindow(ids[0].numpy(), 16, tensors[0], prefilled=0)])
    found, expected = run.logits_of(range(16)), logits[0].numpy()
    assert np.isfinite(found).all()
    assert not session.read("not_finite", 0)
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.03 * expected.std()
