"""The exact Mann-Whitney test of two small samples, and Holm's correction for several tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_EXACT_AT_MOST = 100  # values of both samples together; for more, the normal approximation is close enough


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Whitney test of two samples, ties included.

    It is exact (the share of all assignments of the ranks to the samples that are at least as extreme), except for
    large samples.
    """
    doubled = _doubled_ranks([*first, *second])
    count, total = len(first), len(doubled)
    distance = abs(sum(doubled[:count]) - count * (total + 1))
    if total > _EXACT_AT_MOST:
        return _normal_p(distance, doubled, count)
    ways = _ways(doubled, count)
    far = np.abs(np.arange(ways.size) - count * (total + 1)) >= distance
    return float(ways[far].sum() / ways.sum())


def least_p(first: int, second: int) -> float:
    """Return the smallest p-value that `rank_sum_p` can give for samples of these sizes: that of disjoint samples."""
    return min(1.0, 2.0 / math.comb(first + second, first))


def holm(values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number by Holm's method, in the same order."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value, from 1; doubled, the mean rank of equal values is an integer too."""
    array = np.asarray(values)
    return [int((array < value).sum() + (array <= value).sum()) + 1 for value in values]


def _ways(ranks: Sequence[int], count: int) -> np.ndarray:
    """Return, for each sum from 0 on, how many selections of `count` ranks have this sum."""
    ways = np.zeros((count + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    chosen: np.ndarray = ways[count]
    return chosen


def _normal_p(distance: float, ranks: Sequence[int], count: int) -> float:
    """Return the two-sided p-value by the normal approximation, for a rank sum this far from its mean."""
    others = len(ranks) - count
    deviation = math.sqrt(count * others * float(np.var(ranks)) / (len(ranks) - 1))
    return math.erfc(distance / deviation / math.sqrt(2.0)) if deviation else 1.0
