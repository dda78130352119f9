"""The rank test and its correction, against values from tables and by hand."""

from __future__ import annotations

import math
from itertools import combinations

import pytest

from jukebox_deploy.benchmarks.rank_test import holm, least_p, rank_sum_p


def test_separate_samples_have_the_least_p() -> None:
    assert rank_sum_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert least_p(5, 5) == pytest.approx(2 / 252)
    assert least_p(1, 1) == 1.0


def test_ties_share_their_ranks() -> None:
    assert rank_sum_p([3, 3, 3], [3, 3, 3, 3]) == 1.0
    first, second = [1, 2, 2, 4], [2, 4, 4, 5, 6]
    values = first + second
    ranks = [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
    middle = len(first) * (len(values) + 1) / 2
    distance = abs(sum(ranks[: len(first)]) - middle)
    ways = [abs(sum(dealt) - middle) >= distance for dealt in combinations(ranks, len(first))]
    assert rank_sum_p(first, second) == pytest.approx(sum(ways) / len(ways))


def test_many_values_are_close_to_the_exact_test() -> None:
    """On both sides of the number beyond which the normal distribution is taken."""
    exact, normal = (rank_sum_p([2.0 * i for i in range(n)], [2.0 * i + n / 3 for i in range(n)]) for n in (50, 51))
    assert math.isclose(exact, normal, rel_tol=0.2)


def test_many_tests_count_as_many() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
