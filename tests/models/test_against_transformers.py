"""Priors against `transformers` with the same weights, where it is right.

Where it is wrong is shown in `test_transformers_differences.py`.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.transformers_pairs import OURS, Pair, assert_close, pair, random_codes, upper_codes


@pytest.fixture(params=OURS)
def priors(request) -> Pair:
    return pair(request.param)


def test_teacher_forced_logits_are_equal(priors):
    codes, upper = random_codes(), upper_codes(priors)
    assert_close(priors.logits(codes, upper), priors.their_logits(codes, upper))


@pytest.mark.parametrize("known", [0, 37])
def test_greedy_windows_are_equal(priors, known):
    codes, upper = random_codes(), upper_codes(priors)
    expected = priors.their_greedy(codes[:, :known], upper)
    np.testing.assert_array_equal(priors.greedy(priors.batch(codes, upper), known), expected)
