"""The order of examples: permutations, the same for any number of processes, and windows that cover songs."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jukebox_deploy.data.coverage import Coverage
from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.order import ExampleOrder, shuffled
from jukebox_deploy.errors import ConfigError

SEEDS = st.integers(0, 2**64 - 1)


def permutation(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    return tuple(shuffled(np.arange(count), count, Dice(seed, Stream.EPOCH, epoch)).tolist())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), SEEDS)
def test_every_example_comes_once(count, seed):
    assert sorted(permutation(seed, 0, count)) == list(range(count))


def test_a_part_of_the_order_is_that_part_of_all_of_it():
    whole = permutation(1, 2, 1000)
    positions = np.array([999, 3, 500])
    chosen = shuffled(positions, 1000, Dice(1, Stream.EPOCH, 2))
    assert chosen.tolist() == [whole[position] for position in positions]


def test_all_orders_are_equally_likely():
    """24 orders of 4, 25 each expected: chi-squared with 23 degrees of freedom is below 60 but for 1 in 30,000."""
    counts = dict.fromkeys(permutations(range(4)), 0)
    for epoch in range(600):
        counts[permutation(5, epoch, 4)] += 1
    assert sum((count - 25) ** 2 / 25 for count in counts.values()) < 60


def test_neighbours_are_torn_apart():
    """Of 10,000 examples, one pair of neighbours is expected to stay together."""
    order = np.array(permutation(3, 0, 10_000))
    assert (np.abs(np.diff(order)) == 1).sum() < 12


def test_the_order_is_fixed():
    """A change would change the batches of running trainings."""
    assert permutation(0, 0, 10) == (6, 3, 2, 9, 5, 7, 1, 4, 0, 8)


def examples(order: ExampleOrder, steps: range) -> list[int]:
    return [int(index) for step in steps for index in order.examples(order.numbers(step))]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 7), SEEDS)
def test_epochs_hold_every_example_and_differ(count, batch, seed):
    order = ExampleOrder(count, batch, seed)
    met = order.examples(range(3 * count)).tolist()
    epochs = [tuple(met[first : first + count]) for first in range(0, 3 * count, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 20:
        assert len(set(epochs)) == 3
    assert set(order.examples(range(order.batches_per_epoch * batch)).tolist()) == set(range(count))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.integers(1, 4), st.integers(1, 4), st.integers(0, 40))
def test_processes_together_see_what_one_would(count, batch, workers, step):
    one = ExampleOrder(count, batch * workers, 9)
    shares = [ExampleOrder(count, batch, 9, rank, workers) for rank in range(workers)]
    assert [i for share in shares for i in examples(share, range(step, step + 1))] == examples(
        one, range(step, step + 1)
    )
    assert {share.batches_per_epoch for share in shares} == {one.batches_per_epoch}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch: expected"),
        ({"seed": -1}, "seed: expected"),
        ({"rank": 2, "workers": 2}, "rank: expected 0 to 1 of 2 processes, found 2"),
    ],
)
def test_orders_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        ExampleOrder(**{"count": 3, "batch": 1, "seed": 0, **options})
    with pytest.raises(ConfigError, match="step: expected"):
        ExampleOrder(3, 1, 0).numbers(-1)


SONGS = st.tuples(st.integers(1, 5), st.integers(1, 6), st.lists(st.integers(0, 40), min_size=1, max_size=5))


@settings(max_examples=40, deadline=None)
@given(SONGS)
def test_windows_cover_every_song_and_are_no_more_than_needed(case):
    unit, units, extra = case
    window = unit * units
    lengths = [window + unit * more for more in extra]
    coverage = Coverage(lengths, window, unit)
    heard = [np.zeros(length, bool) for length in lengths]
    for index in range(coverage.count):
        place = coverage.place(index)
        assert place.start % unit == 0
        assert 0 <= place.start <= lengths[place.song] - window
        heard[place.song][place.start : place.start + window] = True
    assert all(song.all() for song in heard)
    assert coverage.count == sum(-(-length // window) for length in lengths)


@settings(max_examples=40, deadline=None)
@given(SONGS, st.floats(0, 1, exclude_max=True))
def test_shifted_windows_stay_near_and_in_their_song(case, uniform):
    unit, units, extra = case
    window = unit * units
    lengths = [window + unit * more for more in extra]
    coverage = Coverage(lengths, window, unit)
    for index in range(coverage.count):
        fixed, shifted = coverage.place(index), coverage.place(index, uniform)
        assert shifted.song == fixed.song
        assert shifted.start % unit == 0
        assert 0 <= shifted.start <= lengths[shifted.song] - window
        assert abs(shifted.start - fixed.start) <= window / 2


def test_every_start_is_reached():
    coverage = Coverage([29], 10)
    starts = {coverage.place(i, u).start for i in range(coverage.count) for u in np.linspace(0, 0.999, 200)}
    assert starts == set(range(20))
