"""Agreement by chance, against all orders one by one."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from jukebox_deploy.jobs.samples.chance import expected_share, permutation_p_value

PAIRS = [
    ("abc", "abc"),
    ("aabb", "abab"),
    ("aabbcc", "aabbbc"),
    ("aaaabc", "aaaaaa"),
    ("aabbccd", "abxbcdd"),
    ("abab", "baba"),
]


def hits(one, other) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("asked", "heard"), PAIRS)
def test_every_order_counts_once(asked, heard):
    orders = [hits(order, heard) for order in permutations(asked)]
    assert permutation_p_value(asked, heard) == pytest.approx(np.mean([n >= hits(asked, heard) for n in orders]))
    assert expected_share(asked, heard) == pytest.approx(np.mean(orders) / len(asked))


def test_the_chance_of_evenly_asked_labels_is_one_of_them_whatever_is_heard():
    assert expected_share("aabbcc", "aaaaab") == pytest.approx(1 / 3)


def test_one_sound_for_all_requests_is_no_more_than_chance():
    assert expected_share("aaaaab", "aaaaaa") == pytest.approx(5 / 6)
    assert permutation_p_value("aaaaab", "aaaaaa") == 1


def test_a_single_label_cannot_be_tested():
    assert expected_share("aaa", "aaa") == 1
    assert permutation_p_value("aaa", "aaa") is None


def test_many_samples_are_no_trouble():
    names = "abcdef" * 40
    assert 0 < (permutation_p_value(names, names) or 0) < 1e-100
    assert permutation_p_value(names, names[1:] + names[:1]) == 1
