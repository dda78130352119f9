"""Metrics against their formulas, worked out by hand, and their sums over batches."""

from __future__ import annotations

import math

import pytest
import torch

from jukebox_deploy.models.prior_loss import token_bits
from jukebox_deploy.training.metrics import (
    ErrorEnergy,
    TokenScore,
    code_counts,
    code_use,
    error_energy,
    token_score,
)


@pytest.mark.parametrize(
    ("target", "output", "decibels"),
    [
        ([3.0, 4.0], [3.0, 3.5], 20.0),  # 25 over 0.25
        ([1.0, 1.0], [0.0, 2.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0], math.inf),
        ([0.0, 0.0], [0.0, 1.0], -math.inf),
    ],
)
def test_decibels_are_energy_over_the_energy_of_the_error(target, output, decibels):
    assert error_energy(torch.tensor(target), torch.tensor(output)).decibels == pytest.approx(decibels)


def test_a_sample_that_is_no_number_shows():
    assert math.isnan(error_energy(torch.ones(2), torch.tensor([1.0, math.nan])).decibels)


def test_energies_of_pieces_are_those_of_the_whole():
    target, output = torch.randn(2, 1, 1000, generator=torch.Generator().manual_seed(1)).split(1)
    pieces = [error_energy(t, o) for t, o in zip(target.split(300, -1), output.split(300, -1), strict=True)]
    assert sum(pieces, ErrorEnergy()).decibels == pytest.approx(error_energy(target, output).decibels)


def test_small_errors_are_not_lost_in_long_audio():
    """In float32 a sum of squares of a minute stops growing by the smaller ones."""
    target = torch.ones(1 << 21)
    assert error_energy(target, target + 1e-3).decibels == pytest.approx(60, abs=1e-3)


def test_the_use_of_codes_by_hand():
    use = code_use(code_counts(torch.tensor([[0, 0, 3], [5, 0, 3]]), 8))
    assert (use.codes, use.codebook_size, use.used) == (6, 8, 3)
    by_hand = 1 / 2 * 1 + 1 / 3 * math.log2(3) + 1 / 6 * math.log2(6)
    assert use.entropy_bits == pytest.approx(by_hand)
    assert use.entropy_nats == pytest.approx(by_hand * math.log(2))
    assert use.perplexity == pytest.approx(2**by_hand)


def test_codes_that_are_equally_frequent_have_the_codebooks_perplexity():
    assert code_use(torch.full((512,), 7)).perplexity == pytest.approx(512)


@pytest.mark.parametrize("counts", [torch.zeros(4, dtype=torch.int64), torch.tensor([0, 9, 0, 0])])
def test_one_code_or_none_has_no_entropy(counts):
    use = code_use(counts)
    assert (use.entropy_nats, use.perplexity) == (0, 1)
    assert not math.copysign(1, use.entropy_nats) < 0  # nobody wants to read -0.0


def test_bits_and_hits_by_hand():
    """Probabilities 1/2, 1/4, 1/4 of three tokens: 1 bit for the first, 2 for the others."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().repeat(4, 1)[None]
    score = token_score(logits, torch.tensor([[0, 1, 2, 0]]))
    assert score.bits == pytest.approx(1 + 2 + 2 + 1)
    assert score.bits_per_token == pytest.approx(1.5)
    assert (score.hits, score.tokens, score.top1) == (2, 4, 0.5)


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    score = token_score(torch.zeros(2, 3, 512), torch.zeros(2, 3, dtype=torch.int64))
    assert score.bits_per_token == pytest.approx(9)


def test_the_bits_are_those_of_the_loss():
    generator = torch.Generator().manual_seed(2)
    logits, tokens = torch.randn(3, 50, 80, generator=generator), torch.randint(80, (3, 50), generator=generator)
    assert token_score(logits, tokens).bits_per_token == pytest.approx(token_bits(logits, tokens).item(), rel=1e-6)


def test_scores_of_pieces_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(3)
    logits, tokens = torch.randn(2, 70, 16, generator=generator), torch.randint(16, (2, 70), generator=generator)
    pieces = [token_score(x, t) for x, t in zip(logits.split(30, 1), tokens.split(30, 1), strict=True)]
    total, whole = sum(pieces, TokenScore()), token_score(logits, tokens)
    assert total.bits_per_token == pytest.approx(whole.bits_per_token)
    assert (total.hits, total.tokens) == (whole.hits, whole.tokens)


def test_no_tokens_have_no_score():
    assert math.isnan(TokenScore().bits_per_token)
    assert math.isnan(TokenScore().top1)
