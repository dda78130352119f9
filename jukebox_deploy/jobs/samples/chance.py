"""Agreement of two series of labels by chance, if they were independent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb, factorial


def expected_share(asked: Sequence[str], heard: Sequence[str]) -> float:
    """Return the mean share of equal pairs over all orders of `asked`: the sum over labels of p(asked) * p(heard).

    Both have the same length, at least 1.
    """
    heard_counts = Counter(heard)
    return sum(count * heard_counts[name] for name, count in Counter(asked).items()) / len(asked) ** 2


def permutation_p_value(asked: Sequence[str], heard: Sequence[str]) -> float | None:
    """Return the exact share of all orders of `asked` with at least as many equal pairs as observed.

    `None` if only one label is asked for: all orders are then the same, so nothing can be tested.
    """
    if len(set(asked)) < 2:
        return None
    hits = sum(one == other for one, other in zip(asked, heard, strict=True))
    if hits == 0:
        return 1.0
    total, ways = len(asked), _ways_to_agree(Counter(asked), Counter(heard))
    # Inclusion and exclusion: orders with at least `hits` equal pairs, from those with `agreeing` chosen ones.
    orders = sum(
        (-1) ** (agreeing - hits) * comb(agreeing - 1, hits - 1) * ways[agreeing] * factorial(total - agreeing)
        for agreeing in range(hits, len(ways))
    )
    return orders / factorial(total)


def _ways_to_agree(asked: Counter[str], heard: Counter[str]) -> list[int]:
    """Count the ways to pair 0, 1, 2, ... items of `asked` with items of `heard` of the same label."""
    ways = [1]
    for name, count in asked.items():
        own = [comb(count, k) * comb(heard[name], k) * factorial(k) for k in range(min(count, heard[name]) + 1)]
        ways = _product(ways, own)
    return ways


def _product(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Return the coefficients of the product of two polynomials."""
    product = [0] * (len(one) + len(other) - 1)
    for power, factor in enumerate(one):
        for further, coefficient in enumerate(other):
            product[power + further] += factor * coefficient
    return product
