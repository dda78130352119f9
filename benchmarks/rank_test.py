"""Whether two small samples differ by more than chance: an exact rank test, and a correction for many of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_EXACT_AT_MOST = 100  # values of both samples together; the normal distribution is close enough beyond


def rank_sum_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of the Mann-Whitney test, exact with ties too: over all ways to deal out the ranks."""
    doubled = _doubled_ranks([*first, *second])
    count, total = len(first), len(doubled)
    distance = abs(sum(doubled[:count]) - count * (total + 1))
    if total > _EXACT_AT_MOST:
        return _normal_p(distance, doubled, count)
    ways = _ways(doubled, count)
    far = np.abs(np.arange(ways.size) - count * (total + 1)) >= distance
    return float(ways[far].sum() / ways.sum())


def least_p(first: int, second: int) -> float:
    """What the test gives for two samples of these sizes if all values of one are above all of the other."""
    return min(1.0, 2.0 / math.comb(first + second, first))


def holm(values: Sequence[float]) -> list[float]:
    """Each p as it counts among the others, by Holm's method."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - place) * values[index]))
        corrected[index] = largest
    return corrected


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, from 1; equal values share the middle of their ranks."""
    array = np.asarray(values)
    return [int((array < value).sum() + (array <= value).sum()) + 1 for value in values]


def _ways(ranks: Sequence[int], count: int) -> np.ndarray:
    """In how many ways `count` of the ranks have each sum."""
    ways = np.zeros((count + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, :-rank].copy()
    chosen: np.ndarray = ways[count]
    return chosen


def _normal_p(distance: float, ranks: Sequence[int], count: int) -> float:
    others = len(ranks) - count
    deviation = math.sqrt(count * others * float(np.var(ranks)) / (len(ranks) - 1))
    return math.erfc(distance / deviation / math.sqrt(2.0)) if deviation else 1.0
