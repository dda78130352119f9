"""Rounding with error feedback: better where inputs go together, plain rounding where they do not."""

from __future__ import annotations

import pytest
import torch

from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.gptq import quantise_with_feedback, second_moments
from jukebox_deploy.export.quantisation import WeightFormat, quantise

FORMATS = [WeightFormat.of(LinearWeights(name)) for name in ("int8", "int4", "fp8")]


@pytest.fixture(scope="module")
def case() -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix of more than one block of columns, and inputs that go together."""
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(160, 160, generator=generator) / 160**0.5
    rows = torch.randn(3, 400, 160, generator=generator) @ (mixing + 0.3 * torch.eye(160))
    return torch.randn(160, 48, generator=generator), rows


@pytest.mark.parametrize("form", FORMATS)
def test_outputs_change_less_than_with_plain_rounding(form, case):
    weight, rows = case
    plain = quantise(weight, form, torch.float32).dequantise()
    fed_back = quantise_with_feedback(weight, second_moments(rows), form, torch.float32).dequantise()
    errors = [float((rows @ (found - weight)).norm()) for found in (plain, fed_back)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("form", FORMATS)
def test_independent_inputs_are_rounded_plainly(form, case):
    weight, _ = case
    plain = quantise(weight, form, torch.float32)
    fed_back = quantise_with_feedback(weight, torch.eye(160), form, torch.float32)
    torch.testing.assert_close(fed_back.values, plain.values, rtol=0, atol=0)
    torch.testing.assert_close(fed_back.scales, plain.scales, rtol=0, atol=0)


def test_few_rows_are_enough_to_go_on(case):
    weight, rows = case
    found = quantise_with_feedback(weight, second_moments(rows[0, :3]), FORMATS[1], torch.float16)
    assert found.scales.dtype is torch.float16
    assert bool(torch.isfinite(found.dequantise()).all())


def test_the_matrix_stays_as_it_was(case):
    weight, rows = case
    before = weight.clone()
    quantise_with_feedback(weight, second_moments(rows), FORMATS[1], torch.float32)
    torch.testing.assert_close(weight, before, rtol=0, atol=0)


def test_second_moments_of_all_rows(case):
    _, rows = case
    flat = rows.reshape(-1, 160).double()
    torch.testing.assert_close(second_moments(rows).double(), flat.T @ flat, rtol=1e-4, atol=1e-2)


def test_a_matrix_without_whole_groups_is_refused():
    with pytest.raises(ExportError, match="a multiple of 32 inputs"):
        quantise_with_feedback(torch.ones(33, 4), torch.eye(33), FORMATS[1], torch.float32)
