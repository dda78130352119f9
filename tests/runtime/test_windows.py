import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.presets import PRESETS, preset
from jukebox_deploy.runtime.windows import Window, WindowGeometry, partial_window, plan_level, window_starts

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "labels_and_windows.json").read_text(encoding="utf-8"))


@st.composite
def geometries(draw, upsampling=None):
    factor = upsampling or draw(st.sampled_from([1, 2, 4]))
    window = draw(st.integers(1, 30))
    return WindowGeometry(window * factor, draw(st.integers(1, window)) * factor, factor)


@st.composite
def levels(draw):
    """A geometry, a length that it can sample, and how much is there already."""
    geometry = draw(geometries())
    if geometry.upsampling == 1:
        total = draw(st.integers(1, 200))
    else:
        total = geometry.upsampling * draw(st.integers(geometry.window // geometry.upsampling, 100))
    return geometry, total, draw(st.integers(0, total))


def test_starts_equal_the_original():
    for case in GOLDEN["get_starts"]:
        geometry = WindowGeometry(case["n_ctx"], case["hop_length"])
        assert window_starts(geometry, case["total_length"]) == case["starts"]


def test_partial_windows_reach_the_lengths_of_the_original():
    """From nothing, after 21 codes, after a full window: the runs of the original's partial windows."""
    geometry = WindowGeometry(64, 16)
    case = GOLDEN["end_to_end"]
    for present, new, total in zip((0, 21, 64), case["partial_new"], case["partial_totals"], strict=True):
        window = partial_window(geometry, present, new)
        assert window.new_codes == range(present, total)
        assert window.start >= 0
        assert window.end <= 64
    assert partial_window(geometry, 0, 29) == Window(0, 0, 29)
    assert partial_window(geometry, 21, 29) == Window(0, 21, 50)
    assert partial_window(geometry, 64, 17) == Window(17, 47, 64)


@given(levels())
def test_each_missing_code_is_sampled_once_and_in_order(level):
    geometry, total, present = level
    windows = plan_level(geometry, total, present)
    assert [code for window in windows for code in window.new_codes] == list(range(present, total))


@given(levels())
def test_windows_lie_within_the_level(level):
    geometry, total, present = level
    for window in plan_level(geometry, total, present):
        assert window.start >= 0
        assert 0 <= window.known < window.end <= geometry.window
        assert window.start % geometry.upsampling == 0
        if total >= geometry.window:
            assert window.end == geometry.window
            assert window.start + geometry.window <= total


@given(levels())
def test_windows_start_on_the_grid_or_end_with_the_level(level):
    geometry, total, present = level
    for window in plan_level(geometry, total, present):
        assert window.start % geometry.hop == 0 or window.start + window.end == total


@given(levels(), st.data())
def test_a_resumed_level_uses_the_same_windows(level, data):
    """Cut at the end of any window, what is left of the plan is the plan of what is left."""
    geometry, total, _ = level
    windows = plan_level(geometry, total)
    done = data.draw(st.integers(0, len(windows)))
    present = windows[done - 1].new_codes.stop if done else 0
    assert plan_level(geometry, total, present) == windows[done:]


def test_released_plan():
    geometry = WindowGeometry.of(preset("1b_lyrics").prior(2))
    assert geometry == WindowGeometry(6144, 768)
    assert plan_level(geometry, 6144 + 1000) == [
        Window(0, 0, 6144),
        Window(768, 5376, 6144),
        Window(1000, 5912, 6144),
    ]
    assert WindowGeometry.of(preset("1b_lyrics").prior(0)) == WindowGeometry(8192, 4096, 4)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_geometry(name):
    for prior in PRESETS[name].priors:
        assert plan_level(WindowGeometry.of(prior), prior.window) == [Window(0, 0, prior.window)]


def test_a_complete_level_needs_nothing():
    assert plan_level(WindowGeometry(64, 16), 100, 100) == []


def test_windows_that_are_there_are_skipped():
    assert plan_level(WindowGeometry(64, 32), 128, 70) == [Window(32, 38, 64), Window(64, 32, 64)]


@pytest.mark.parametrize(
    ("total", "present", "message"),
    [
        (0, 0, "at least one code, found 0"),
        (-5, 0, "at least one code, found -5"),
        (100, 101, "101 codes already exist"),
        (100, -1, "-1 codes already exist"),
    ],
)
def test_lengths_that_cannot_be(total, present, message):
    with pytest.raises(SamplingError, match=message):
        plan_level(WindowGeometry(64, 16), total, present)


def test_upsamplers_need_a_full_window_and_whole_upper_codes():
    geometry = WindowGeometry(64, 16, 4)
    with pytest.raises(SamplingError, match="full window of 64 codes, only 60"):
        plan_level(geometry, 60)
    with pytest.raises(SamplingError, match="70 codes are not a multiple of 4"):
        plan_level(geometry, 70)


def test_starts_need_a_window():
    with pytest.raises(SamplingError, match="less than one window of 64"):
        window_starts(WindowGeometry(64, 16), 63)


@pytest.mark.parametrize(("present", "new"), [(0, 65), (10, 0), (-1, 3)])
def test_partial_windows_that_cannot_be(present, new):
    with pytest.raises(SamplingError, match="cannot add"):
        partial_window(WindowGeometry(64, 16), present, new)
