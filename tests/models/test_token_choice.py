"""The choice of the next code: filters of the original, and draws by inverse CDF."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jukebox_deploy.models.token_choice import choose_codes, kept_codes, logits_are_finite
from tests.models.oracle_names import load_golden
from tests.models.oracle_priors import settings

LAST_UNIFORM = 1 - 2**-23
"""The largest number that the runtime's generator hands in."""


def choose(logits, uniform, temperature=1.0, top_k=0, top_p=0.0) -> np.ndarray:
    """Codes for one row of logits and many uniform numbers."""
    uniform = torch.as_tensor(uniform, dtype=torch.float32)
    count = len(uniform)
    rows = torch.as_tensor(logits, dtype=torch.float32).expand(count, -1)
    filters = torch.full((count,), top_k), torch.full((count,), float(top_p))
    return choose_codes(rows, uniform, torch.full((count,), float(temperature)), *filters).numpy()


def random_logits(codes: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(codes, generator=torch.Generator().manual_seed(seed))


GOLDEN = load_golden("filter_logits.npz")
CASES = [(i, *case) for i, case in enumerate(settings(GOLDEN)["cases_top_k_top_p"])]


@pytest.mark.parametrize(("number", "top_k", "top_p"), CASES)
def test_filters_keep_what_the_original_keeps(number, top_k, top_p):
    logits = torch.from_numpy(GOLDEN["in/logits"]).flatten(0, 1)
    expected = np.isfinite(GOLDEN[f"out/{number}"].reshape(logits.shape))
    rows = len(logits)
    kept = kept_codes(logits, torch.full((rows,), top_k), torch.full((rows,), top_p)).numpy()
    for row, keeps, values in zip(kept, expected, logits.numpy(), strict=True):
        if top_p and len(set(values)) < len(values):
            # Which of equal codes go is left to the sort there; here the lower codes stay.
            assert sorted(values[row]) == sorted(values[keeps])
        else:
            np.testing.assert_array_equal(row, keeps)


def test_every_slot_has_its_own_filters():
    logits = random_logits(50).expand(4, -1)
    top_k, top_p = torch.tensor([0, 3, 0, 1]), torch.tensor([0.0, 0.0, 0.5, 0.0])
    together = kept_codes(logits, top_k, top_p)
    for i in range(4):
        alone = kept_codes(logits[:1], top_k[i : i + 1], top_p[i : i + 1])
        np.testing.assert_array_equal(together[i], alone[0])
    assert together.sum(dim=1).tolist()[:2] == [50, 3]
    assert together[3].sum() == 1


def test_of_equal_logits_the_lower_codes_stay():
    kept = kept_codes(torch.zeros(1, 10), torch.tensor([0]), torch.tensor([0.35]))
    np.testing.assert_array_equal(np.flatnonzero(kept[0]), range(4))  # 0.3 before the fourth, 0.4 before the fifth


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"temperature": 1.5, "top_k": 5}, {"top_p": 0.6}],
    ids=["plain", "cold", "top-k", "top-p"],
)
def test_draws_have_the_right_distribution(options):
    """Chi-square of many draws against the probabilities that the definition gives."""
    logits, draws = random_logits(12), 200_000
    random = np.random.default_rng(7)
    found = np.bincount(choose(logits, random.random(draws, dtype=np.float32), **options), minlength=12)
    values = logits.double().numpy() / options.get("temperature", 1.0)
    order = np.argsort(-values)
    chances = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
    before = np.cumsum(chances[order]) - chances[order]
    stays = np.zeros(12, bool)
    stays[order[: options.get("top_k", 12)]] = True
    stays[order[before > options.get("top_p", 1.0)]] = False
    expected = draws * chances * stays / chances[stays].sum()
    assert not found[~stays].any()
    statistic = ((found - expected)[stays] ** 2 / expected[stays]).sum()
    degrees = stays.sum() - 1
    assert statistic < degrees + 4 * np.sqrt(2 * degrees) + 4


def test_draws_grow_with_the_uniform_number():
    logits = random_logits(300)
    codes = choose(logits, np.linspace(0, LAST_UNIFORM, 5000))
    assert (np.diff(codes) >= 0).all()
    edges = np.cumsum(torch.softmax(logits.double(), dim=0).numpy())
    np.testing.assert_array_equal(
        choose(logits, edges[:-1:30] - 1e-5), np.searchsorted(edges, edges[:-1:30] - 1e-5, side="right")
    )


@pytest.mark.parametrize("temperature", [0.01, 0.99, 3.0])
def test_edges_of_the_uniform_numbers(temperature):
    """0 takes the first code that can be, the largest number the last one; neither leaves the kept ones."""
    for seed in range(30):
        logits = random_logits(2048, seed)
        for filters in ({}, {"top_k": 1}, {"top_k": 4}, {"top_p": 0.3}):
            codes = choose(logits, [0.0, 2**-24, 0.5, LAST_UNIFORM], temperature, **filters)
            top_k, top_p = (torch.tensor([filters.get(name, 0)]) for name in ("top_k", "top_p"))
            kept = kept_codes(logits[None] / temperature, top_k, top_p.float())[0].numpy()
            chances = torch.softmax(torch.where(torch.from_numpy(kept), logits / temperature, -torch.inf), dim=0)
            assert kept[codes].all()
            assert (chances.numpy()[codes] > 0).all()


def test_temperature_zero_takes_the_most_likely_code():
    logits = random_logits(100)
    assert set(choose(logits, np.linspace(0, LAST_UNIFORM, 50), temperature=0.0)) == {int(logits.argmax())}
    assert set(choose(torch.zeros(5), [0.1, 0.9], temperature=0.0)) == {0}  # the lower one of equals
    assert set(choose(logits, [0.0, 0.9], temperature=0.0, top_p=0.5)) == {int(logits.argmax())}


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_are_told_slot_by_slot(wrong):
    logits = torch.stack([random_logits(20), random_logits(20, 1)])
    logits[1, 7] = wrong
    assert logits_are_finite(logits).tolist() == [True, False]
    for temperature in (0.0, 1.0):
        options = torch.full((2,), temperature), torch.tensor([0, 3]), torch.tensor([0.0, 0.0])
        codes = choose_codes(logits, torch.tensor([0.5, 0.5]), *options)
        assert ((codes >= 0) & (codes < 20)).all()  # no crash, and nothing outside the table
    assert logits_are_finite(torch.tensor([[torch.finfo(torch.float32).max, 0.0]])).tolist() == [True]
