"""The baselines with caches of their own give what our step and prefill give, on the same weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder, AttentionPattern
from jukebox_deploy.benchmarks.growing_caches import GrowingCachePrior, kept_positions
from jukebox_deploy.benchmarks.hugging_face_prior import HuggingFacePrior, reason_to_leave_out
from jukebox_deploy.benchmarks.sequential_prior import SequentialEngine, SequentialPrior
from jukebox_deploy.benchmarks.tasks import SlotWindows
from jukebox_deploy.config import JukeboxConfig, LyricsConfig, PriorConfig, TransformerConfig
from jukebox_deploy.contract import Precision, Role
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.eager.engine import EagerEngine
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.models.attention import AttentionGeometry
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.presets import preset

TINY = preset("tiny")
BLOCK, CONTEXT = 4, 24


def small(order: AttentionOrder, depth: int, *, prime: int = 0, cross: int = 0) -> JukeboxConfig:
    stack = TransformerConfig(
        CONTEXT, 32, depth, 2, order, blocks=CONTEXT // BLOCK, prime_tokens=prime, encoder_tokens=cross
    )
    encoder = TransformerConfig(8, 16, 3, 2, AttentionOrder.FACTORED, blocks=2) if cross else None
    lyrics = LyricsConfig(prime or cross, 79, encoder=encoder) if prime or cross else None
    prior = PriorConfig(2, CONTEXT - prime, TINY.vqvae.codebook_size, stack, TINY.priors[2].labels, lyrics)
    return JukeboxConfig("small", TINY.vqvae, (prior,))


CONFIGS = {
    "factored": small(AttentionOrder.FACTORED, 6),
    "dense": small(AttentionOrder.FACTORED_DENSE, 4),
    "prime": small(AttentionOrder.FACTORED_PRIME_AND_DENSE, 16, prime=8),
    "cross": small(AttentionOrder.FACTORED_CROSS_EVERY_4, 8, cross=8),
}


def weights_of(config: PriorConfig) -> Prior:
    torch.manual_seed(0)
    prior = build_prior(config).eval().requires_grad_(False)
    for name, parameter in prior.named_parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn_like(parameter) * (1.0 if "embedding" in name else parameter.shape[0] ** -0.5))
    return prior


def engines(
    config: JukeboxConfig, make: Callable[[Prior, PriorConfig], SequentialPrior]
) -> tuple[EagerEngine, SequentialEngine]:
    """Ours with caches in place, and one with caches of its own, on the same weights."""
    (prior_config,) = config.priors
    prior = weights_of(prior_config)
    graphs = declare_graphs(config, GraphOptions(slots=(1, 2, 2), logits=True))
    ours = EagerEngine(config, graphs, lambda spec: graph_module(spec, prior))
    return ours, SequentialEngine(
        config, graphs, lambda spec: graph_module(spec, prior), lambda _: make(prior, prior_config), 1
    )


def growing(prior: Prior, config: PriorConfig) -> SequentialPrior:
    return GrowingCachePrior(prior)


def fill(engine: Engine, slots: int):
    """A session whose slots hold different windows and whose caches are zero."""
    session = engine.prior_session(2, slots)
    for tensor in session.spec.tensors:
        if not tensor.in_place and (tensor.role is Role.INPUT or tensor.name == "codes"):
            for slot, value in enumerate(random_feed(tensor, session.spec, engine.config, {"B": slots}, seed=3)):
                session.write(tensor.name, slot, np.asarray(value))
    return session


def start(session, position: int, known_end: int) -> None:
    for slot in range(session.slots):
        session.write("known_end", slot, np.asarray(known_end))
        session.write("position", slot, np.asarray(position))


def assert_same_steps(ours, theirs, steps: int) -> None:
    for _ in range(steps):
        for session in (ours, theirs):
            session.step(1)
        for slot in range(ours.slots):
            np.testing.assert_allclose(theirs.read("logits", slot), ours.read("logits", slot), atol=2e-4, rtol=1e-4)
            assert theirs.read("codes", slot).tolist() == ours.read("codes", slot).tolist()
            assert theirs.read("position", slot) == ours.read("position", slot)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("known", [0, BLOCK, 2 * BLOCK + 3])
def test_windows_are_sampled_as_with_caches_in_place(name: str, known: int) -> None:
    """From the first position on, or behind a prefill that ends at a block's border or within one."""
    sessions = [fill(engine, slots=2) for engine in engines(CONFIGS[name], growing)]
    for session in sessions:
        start(session, 0, known)
        while session.read("position", 0) < known:
            session.prefill(range(2))
    ours, theirs = sessions
    assert_same_steps(ours, theirs, steps=CONTEXT - known)


@pytest.mark.parametrize("position", [1, BLOCK, 3 * BLOCK + 2])
def test_a_window_begins_anywhere_over_caches_of_zeros(position: int) -> None:
    """As benchmarks begin; and begins anew when the position is written again."""
    sessions = [fill(engine, slots=2) for engine in engines(CONFIGS["factored"], growing)]
    for session in sessions:
        start(session, position, position)
    ours, theirs = sessions
    assert_same_steps(ours, theirs, steps=5)
    start(sessions[1], position, position)
    before = sessions[1].read("codes", 0)
    sessions[1].step(5)
    assert sessions[1].read("codes", 0).tolist() == before.tolist()


def test_hugging_face_gives_our_logits() -> None:
    """Prefill, then steps that are told our codes, because it draws by its own random numbers."""
    pytest.importorskip("transformers", "4.57.6")
    config = CONFIGS["factored"]
    ours, theirs = (fill(engine, slots=2) for engine in engines(config, HuggingFacePrior))
    known = BLOCK + 1
    for session in (ours, theirs):
        start(session, 0, known)
        while session.read("position", 0) < known:
            session.prefill(range(2))
    for _ in range(3 * BLOCK):
        ours.step(1)
        theirs.step(1)
        for slot in range(2):
            np.testing.assert_allclose(theirs.read("logits", slot), ours.read("logits", slot), atol=2e-4, rtol=1e-4)
            theirs.write("codes", slot, ours.read("codes", slot))


def test_hugging_face_begins_anywhere() -> None:
    """Over caches of zeros, like ours."""
    pytest.importorskip("transformers", "4.57.6")
    ours, theirs = (fill(engine, slots=1) for engine in engines(CONFIGS["factored"], HuggingFacePrior))
    for session in (ours, theirs):
        start(session, 2 * BLOCK + 1, 0)
        session.step(1)
    np.testing.assert_allclose(theirs.read("logits", 0), ours.read("logits", 0), atol=2e-4, rtol=1e-4)


def test_hugging_face_says_why_it_is_left_out() -> None:
    """Instead of measuring something else."""
    upsampler = TINY.priors[0]
    assert "lyrics" in (reason_to_leave_out(TINY.priors[2], Precision.FP32) or "transformers")
    assert reason_to_leave_out(upsampler, Precision.FP16) is not None


def test_slots_at_different_positions_are_refused() -> None:
    """The original has one position for all."""
    session = fill(engines(CONFIGS["factored"], growing)[1], slots=2)
    session.write("position", 0, np.asarray(3))
    with pytest.raises(EngineError, match="start all slots at one position"):
        session.step(1)
    with pytest.raises(EngineError, match="all 2 slots together"):
        session.prefill(range(1))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (AttentionPattern.DENSE, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (AttentionPattern.COLUMN, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (AttentionPattern.BLOCK, [1, 2, 3, 4, 1, 2, 3, 4, 1]),
        (AttentionPattern.PREVIOUS_BLOCK, [1, 2, 3, 4, 5, 6, 7, 8, 5]),
        (AttentionPattern.PRIME, [1, 2, 3, 4, 5, 5, 5, 5, 5]),
    ],
)
def test_what_the_original_keeps(pattern: AttentionPattern, expected: list[int]) -> None:
    """Specification 7.1, block length 4, a lyric span of 5."""
    geometry = AttentionGeometry(block_length=4, block_count=6, prime_span=5)
    assert [kept_positions(pattern, geometry, filled) for filled in range(1, 10)] == expected


def test_measured_windows_have_no_untouched_caches() -> None:
    """Caches in place hold numbers everywhere before anything is timed."""
    config = dataclasses.replace(CONFIGS["factored"], name="windows")
    windows = SlotWindows(engines(config, growing)[0], 2, 2)
    for tensor in windows.session.spec.tensors:
        if tensor.in_place:
            assert np.count_nonzero(windows.session.read(tensor.name, 1)) > 0.9 * np.prod(tensor.shape({"B": 1}))
