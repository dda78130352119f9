"""Quantisation and the training of codebooks against the original."""

import json
import math

import pytest
import torch

from jukebox_deploy.models.bottleneck import (
    Codebook,
    CodebookState,
    UpdateRule,
    codebook_use,
    draw_candidates,
    join_uses,
    quantise,
    restore_codebook,
    update_codebook,
)
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.models.losses import vqvae_loss
from tests.models.codebook_steps import codebook_step
from tests.models.oracle_losses import BANDWIDTHS, check_report, loss_settings
from tests.models.oracle_names import audio, load_golden, our_name, our_state_dict, relative_error, vqvae_config

METRICS = {
    "fit": "fit",
    "entropy": "entropy",
    "used_current": "used_curr",
    "usage": "usage",
    "change": "dk",
}


def first_rows(rows, count):
    """Candidates without chance, as in the original's recorded runs."""
    return rows.repeat(math.ceil(count / rows.shape[0]), 1)[:count]


def load(name):
    golden = load_golden(name)
    model = build_vqvae(vqvae_config(golden))
    model.load_state_dict(our_state_dict(golden))
    return golden, model


def check_states(states, golden, prefix):
    for level, state in states.items():
        assert relative_error(state.codes, golden[f"{prefix}k_l{level}"]) < 1e-5
        assert relative_error(state.sums, golden[f"{prefix}k_sum_l{level}"]) < 1e-5
        assert relative_error(state.counts, golden[f"{prefix}k_elem_l{level}"]) < 1e-5


def check_metrics(metrics, golden, prefix):
    for ours, theirs in METRICS.items():
        mean = sum(float(getattr(level, ours)) for level in metrics.values()) / len(metrics)
        assert mean == pytest.approx(float(golden[f"{prefix}/{theirs}"]), rel=1e-5), ours


def test_three_training_steps_match_the_original():
    golden, model = load("vqvae_small_2level.npz")
    parameters = dict(model.named_parameters())
    names = [our_name(name) for name in json.loads(str(golden["param_names"]))]
    states = dict.fromkeys((0, 1))
    for step in range(3):
        target = audio(golden, f"in/train_x{step}")
        result = codebook_step(model, target, states, first_rows)
        report = vqvae_loss(target, result.reconstruction, loss_settings(golden), BANDWIDTHS)
        check_report(report, golden, f"out/train{step}")
        check_metrics(result.metrics, golden, f"out/train{step}")
        states.update(result.codebooks)
        check_states(states, golden, f"out/train{step}/")
        model.zero_grad()
        report.total.backward()
        norms = torch.stack([parameters[name].grad.norm() for name in names])
        expected = torch.from_numpy(golden[f"out/train{step}/grad_norms"])
        torch.testing.assert_close(norms.double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["vqvae_3level.npz", "vqvae_small_2level.npz"])
@torch.no_grad()
def test_training_goes_on_from_restored_codebooks(name):
    golden, model = load(name)
    target, config = audio(golden, "in/x"), vqvae_config(golden)
    states = {
        level: restore_codebook(codebook.codes, target.shape[-1] // config.hop_length(level))
        for level, codebook in enumerate(model.codebooks)
    }
    result = codebook_step(model, target, states, first_rows, UpdateRule(threshold=0.5))
    check_report(vqvae_loss(target, result.reconstruction, loss_settings(golden), BANDWIDTHS), golden, "out/restore")
    check_metrics(result.metrics, golden, "out/restore")
    check_states(result.codebooks, golden, "out/restore/after_")


def test_restoring_spreads_the_tokens_evenly():
    codes = torch.randn(8, 4)
    state = restore_codebook(codes, tokens=12)
    assert torch.equal(state.codes, codes)
    assert torch.equal(state.counts, torch.full((8,), 1.5))
    assert torch.equal(state.sums, 1.5 * codes)


def test_unused_codes_restart_at_candidates_and_keep_their_average():
    codes = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    state = CodebookState(codes, 5 * codes, torch.tensor([5.0, 0.9]))
    latents = torch.full((1, 2, 3), 0.5)
    candidates = torch.tensor([[7.0, 7.0], [8.0, 8.0]])
    updated, metrics = update_codebook(
        state, codebook_use(latents, codes), UpdateRule(decay=0.5), lambda rows, count: candidates
    )
    torch.testing.assert_close(updated.counts, torch.tensor([4.0, 0.45]))
    torch.testing.assert_close(updated.sums, torch.tensor([[0.75, 0.75], [25.0, 25.0]]))
    torch.testing.assert_close(updated.codes, torch.tensor([[0.1875, 0.1875], [8.0, 8.0]]))
    assert (float(metrics.used_current), float(metrics.usage)) == (1.0, 1.0)
    assert torch.equal(state.codes, codes)  # states are values: the old one is as it was


def test_the_use_by_pieces_of_a_batch_is_that_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    latents, codes = torch.randn(4, 3, 50, generator=generator), torch.randn(8, 3, generator=generator)
    whole = codebook_use(latents, codes)
    joined = join_uses([codebook_use(piece, codes) for piece in latents.split(1)])
    assert torch.equal(joined.latents, whole.latents)
    assert torch.equal(joined.counts, whole.counts)
    torch.testing.assert_close(joined.sums, whole.sums)
    torch.testing.assert_close(joined.fit, whole.fit)


@pytest.mark.parametrize(("latents", "stay"), [(3, [True, True]), (30, [True, False])])
def test_a_code_with_a_share_of_what_codes_have_stays_however_small_the_batch(latents, stay):
    """Of 3 latents two codes have 1.5 on average, and 0.4 of that is less than 0.8; of 30 it is more than 1."""
    codes = torch.tensor([[0.0], [10.0]])
    state = CodebookState(codes, codes, torch.tensor([5.0, 0.8]))
    rule = UpdateRule(decay=1.0, share=0.4)
    use = codebook_use(torch.zeros(1, 1, latents), codes)
    updated, metrics = update_codebook(state, use, rule, lambda rows, count: codes + 7)
    assert (updated.codes != codes + 7).flatten().tolist() == stay
    assert float(metrics.usage) == sum(stay)


def test_the_first_of_equally_near_codes_is_taken():
    codebook = Codebook(4, 2)
    codebook.codes.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]))
    assert codebook.encode(torch.zeros(1, 2, 3)).tolist() == [[1, 1, 1]]
    torch.testing.assert_close(codebook.dequantise(torch.tensor([[2]])), torch.tensor([[[-1.0], [0.0]]]))


def test_gradients_pass_straight_through():
    latents = torch.randn(2, 3, 5, requires_grad=True)
    codes = torch.randn(7, 3, requires_grad=True)
    quantised = quantise(latents, codes)
    weights = torch.randn(2, 3, 5)
    (quantised.latents * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    assert codes.grad is None
    latents.grad = None
    quantise(latents, codes).commit_loss.backward()
    expected = 2 * (latents - quantised.latents).detach() / latents.numel()
    torch.testing.assert_close(latents.grad, expected)
    assert codes.grad is None


def test_candidates_are_different_rows():
    rows = torch.arange(40.0).reshape(20, 2)
    drawn = draw_candidates(rows, 20, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn, rows)
    assert torch.equal(drawn[drawn[:, 0].argsort()], rows)
    assert torch.equal(drawn, draw_candidates(rows, 20, torch.Generator().manual_seed(1)))


def test_too_few_rows_are_repeated_with_a_little_noise():
    rows = torch.zeros(3, 4)
    drawn = draw_candidates(rows, 1000, torch.Generator().manual_seed(1))
    assert drawn.shape == (1000, 4)
    assert len(drawn.unique(dim=0)) == 1000
    assert float(drawn.std()) == pytest.approx(0.01 / math.sqrt(4), rel=0.05)
