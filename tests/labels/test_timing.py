import json

import numpy as np
import pytest
import torch

from jukebox_deploy.config import TimingConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.timing import Stretch, duration_limits, timing_bins
from jukebox_deploy.presets import preset

RATE = 44_100
TIMING = TimingConfig(bins=64, min_duration=17.84, max_duration=600.0)
TOP = 2


@pytest.mark.parametrize("name", ["p5b", "p5bl", "p1bl", "small"])
def test_bins_equal_the_original(name, golden_bins):
    settings = json.loads(str(golden_bins["cfg"]))[name]
    timing = TimingConfig(settings["t_bins"], settings["min_duration"], settings["max_duration"])
    for row, numbers in enumerate(golden_bins[f"in/{name}/rows"].tolist()):
        bins = timing_bins(timing, settings["sr"], Stretch(*numbers), settings["n_time"])
        assert bins.total == golden_bins[f"out/{name}/total_bin"][row, 0]
        np.testing.assert_array_equal(bins.absolute, golden_bins[f"out/{name}/abs_bins"][row])
        np.testing.assert_array_equal(bins.relative, golden_bins[f"out/{name}/rel_bins"][row])


def reference_bins(stretch, positions, dtype):
    """The formulas of specification 9.2 in torch, whose CPU arithmetic the original ran on."""
    shortest, longest = TIMING.min_duration * RATE, TIMING.max_duration * RATE
    ends = (stretch.total_length, stretch.offset, stretch.offset + stretch.sample_length)
    total, start, end = (torch.tensor(length).to(dtype) for length in ends)
    fraction = torch.arange(positions).to(dtype) / positions
    first, last = start / total, (end / total).clamp(0, 1)
    scaled = (
        (total - shortest) / (longest - shortest),
        (start + (end - start) * fraction) / longest,
        first + (last - first) * fraction,
    )
    return [torch.floor(TIMING.bins * values).long().tolist() for values in scaled]


@pytest.mark.parametrize(("total_length", "offset"), [(6_001_624, 0), (21_453_435, 21_042_176), (4_606_000, 2_380_672)])
def test_bins_are_computed_in_single_precision(total_length, offset):
    """Each case has a bin that double precision puts elsewhere: total, absolute, relative."""
    stretch = Stretch(total_length, offset, 6144 * 128)
    bins = timing_bins(TIMING, RATE, stretch, 6144)
    ours = [bins.total, bins.absolute.tolist(), bins.relative.tolist()]
    assert ours == reference_bins(stretch, 6144, torch.float32)
    assert ours != reference_bins(stretch, 6144, torch.float64)


@pytest.mark.parametrize("gap", [2, 10, 100, 1000])
def test_relative_bin_is_clamped_at_the_end_of_the_song(gap):
    """Rounding gives bin 64 of 0 to 63 here, where the original stops with an index error."""
    stretch = Stretch(20_000_000, 20_000_000 - gap, 6144 * 128)
    assert max(reference_bins(stretch, 6144, torch.float32)[2]) == 64
    assert timing_bins(TIMING, RATE, stretch, 6144).relative.max() == 63


def test_limits_are_the_first_and_last_accepted_length():
    limits = duration_limits(preset("1b_lyrics").prior(TOP), RATE)
    assert limits is not None
    assert (limits.shortest, limits.longest) == (786_744, 26_459_998)
    assert limits.seconds == pytest.approx((17.84, 600), abs=1e-3)
    for length in (limits.shortest, limits.longest):
        timing_bins(TIMING, RATE, Stretch(length, 0, 786_432), 4)
    for length in (limits.shortest - 1, limits.longest + 1, 0, -1):
        with pytest.raises(LabelError, match=r"17\.84 s to 600\.00 s \(786744 to 26459998 samples\)"):
            timing_bins(TIMING, RATE, Stretch(length, 0, 786_432), 4)


def test_limits_of_other_models():
    limits = duration_limits(preset("5b_lyrics").prior(TOP), RATE)
    assert limits is not None
    assert limits.shortest == 1_049_580
    assert duration_limits(preset("1b_lyrics").prior(0), RATE) is None
    assert duration_limits(preset("small").prior(1), 22_050) is None


@pytest.mark.parametrize("offset", [-1, 1_000_000, 2_000_000])
def test_windows_outside_the_song_are_refused(offset):
    with pytest.raises(LabelError, match="outside its song of 1000000 samples"):
        timing_bins(TIMING, RATE, Stretch(1_000_000, offset, 786_432), 4)


def test_offset_that_rounds_to_the_end_is_refused():
    with pytest.raises(LabelError, match="outside its song"):
        timing_bins(TIMING, RATE, Stretch(26_000_001, 26_000_000, 1), 4)


def test_windows_after_the_longest_song_are_refused():
    length = 786_432
    timing_bins(TIMING, RATE, Stretch(26_000_000, 26_460_000 - length, length), 4)
    with pytest.raises(LabelError, match="after the longest song"):
        timing_bins(TIMING, RATE, Stretch(26_000_000, 26_460_003 - length, length), 4)
