import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime.randomness import uniforms


def philox_block(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox-4x64-10 as its paper describes it: four 64-bit numbers for one value of the counter."""
    mask = 2**64 - 1
    x = [counter >> 64 * i & mask for i in range(4)]
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]
        x = [second >> 64 ^ x[1] ^ k0, second & mask, first >> 64 ^ x[3] ^ k1, first & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return x


@pytest.mark.parametrize("place", [(0, 0, 0), (7, 1, 2), (2**64 - 1, 2**32 - 1, 2**32 - 1)])
def test_numbers_are_those_of_philox(place):
    seed, song, level = place
    raw = [number for block in (1, 2, 3) for number in philox_block(block, (seed, song << 32 | level))]
    expected = [(number >> 41) / 2**23 for number in raw]
    assert uniforms(seed, song, level, 0, 12).tolist() == expected


def test_numbers_stay_the_same_for_ever():
    """Songs are described by their seeds: a change here would change every one of them."""
    assert (uniforms(42, 3, 2, 1000, 6) * 2**23).astype(int).tolist() == [
        52504,
        4528018,
        5205934,
        1799373,
        7021790,
        3873015,
    ]


@given(st.integers(0, 2**40), st.lists(st.integers(0, 9), max_size=8))
def test_any_split_gives_the_same_numbers(start, counts):
    whole = uniforms(1, 2, 0, start, sum(counts))
    starts = np.cumsum([start, *counts])
    parts = [uniforms(1, 2, 0, int(s), c) for s, c in zip(starts, counts, strict=False)]
    np.testing.assert_array_equal(whole, np.concatenate([*parts, np.empty(0, np.float32)]))


def test_other_seeds_songs_and_levels_give_other_numbers():
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32, 0, 0), (0, 2**31, 0)]
    numbers = np.stack([uniforms(*place, 0, 4000) for place in places])
    correlation = np.corrcoef(numbers) - np.eye(len(places))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
    assert len({row.tobytes() for row in numbers}) == len(places)


def test_numbers_are_uniform():
    counts = np.bincount((uniforms(5, 0, 2, 0, 2**18) * 256).astype(int), minlength=256)
    expected = 2**18 / 256
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 170 < chi_square < 350  # 255 degrees of freedom: mean 255, deviation 22.6


def test_neighbours_are_independent():
    u = uniforms(5, 0, 2, 0, 2**16).astype(np.float64)
    for lag in (1, 2, 3, 4, 8):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 5 / np.sqrt(2**16)


def test_type_and_range():
    u = uniforms(0, 0, 0, 0, 1000)
    assert u.dtype == np.float32
    assert u.shape == (1000,)
    assert (u >= 0).all()
    assert (u < 1).all()
    assert uniforms(0, 0, 0, 5, 0).shape == (0,)


@given(st.floats(2**-100, 2**100, width=32))
def test_the_largest_number_stays_below_any_total(total):
    """Resolution: 23 bits keep `u * total < total` in float32; 24 bits would not."""
    largest = np.float32(1 - 2**-23)
    assert largest * np.float32(total) < np.float32(total)
    whole = uniforms(0, 0, 0, 0, 64) * np.float32(2**23)
    assert (whole == np.floor(whole)).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1, 0, 0, 0, 1), "seed"),
        ((2**64, 0, 0, 0, 1), "seed"),
        ((0, 2**32, 0, 0, 1), "song"),
        ((0, 0, -1, 0, 1), "level"),
        ((0, 0, 0, -4, 1), "start"),
        ((0, 0, 0, 0, -1), "count"),
    ],
)
def test_places_outside_the_range_are_refused(arguments, name):
    with pytest.raises(SamplingError, match=name):
        uniforms(*arguments)
