"""How long songs may be, in seconds and options of the command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.errors import LabelError, SamplingError
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.lengths import check_limits, check_windows, lowest_level, shortest_seconds
from jukebox_deploy.runtime.song import Mode, SongLengths, SongRequest, whole_samples

TINY = preset("tiny")  # 1 to 120 s
RELEASED = preset("1b_lyrics")  # 17.84 to 600 s


@pytest.mark.parametrize("name", ["tiny", "small_demo", "1b_lyrics", "5b"])
def test_the_shortest_length_is_a_whole_window_of_every_upsampler_and_a_tenth_less_is_not(name: str) -> None:
    config = preset(name)
    vqvae = config.vqvae
    for lowest in (0, 1):
        windows = [p.window * vqvae.hop_length(p.level) for p in config.priors if lowest <= p.level < config.top_level]
        shortest = shortest_seconds(config, lowest)
        assert whole_samples(shortest, vqvae) >= max(windows) > whole_samples(shortest - 0.1, vqvae)
    assert whole_samples(shortest_seconds(config, 2), vqvae) >= vqvae.hop_lengths[-1]


def test_released_models_need_six_seconds() -> None:
    assert [shortest_seconds(RELEASED, level) for level in range(3)] == [6.0, 6.0, 0.1]


def test_without_upsamplers_nothing_is_too_short() -> None:
    assert shortest_seconds(replace(TINY, priors=TINY.priors[2:]), 2) == 0.1


@pytest.mark.parametrize("seconds", [0.1, 120.0, 120.002])
def test_what_may_be_right_once_it_is_rounded_is_let_pass(seconds: float) -> None:
    check_limits(TINY, SongRequest(seconds=seconds), 0)


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        (
            {"seconds": 120.1},
            LabelError,
            "--seconds: a song of 120.1 s is longer than the model supports: 1.00 s to 120.00",
        ),
        ({"seconds": 100.0, "offset_seconds": 21.0}, LabelError, "--offset and --seconds: a song of 121 s"),
        ({"seconds": 1.0, "total_seconds": 121.0}, LabelError, "--total-seconds: a song of 121 s"),
        ({"seconds": 1.0, "source_seconds": 1e5}, SamplingError, "--prompt-seconds: 100000 s is more than a day"),
    ],
)
def test_what_is_too_long_is_named(fields, error, told: str) -> None:
    with pytest.raises(error, match=told):
        check_limits(TINY, SongRequest(Mode.PRIMED, source="riff.wav", **fields), 0)


def test_an_upsampler_that_is_told_no_time_goes_as_far_as_its_source() -> None:
    check_limits(TINY, SongRequest(Mode.UPSAMPLE, 500.0, source="a"), 0)


def lengths(seconds: float) -> SongLengths:
    samples = whole_samples(seconds, RELEASED.vqvae)
    return SongLengths((0, 0, 0), tuple(samples // hop for hop in RELEASED.vqvae.hop_lengths))


@pytest.mark.parametrize(
    ("seconds", "lowest", "told"),
    [
        (2.0, 0, r"level 0 needs a song of at least 6 s, but this one has 2.00 s: --seconds 6, or --lowest-level 2\."),
        (5.9, 1, r"level 1 needs a song of at least 6 s, but this one has 5.90 s: --seconds 6, or --lowest-level 2\."),
    ],
)
def test_what_is_too_short_is_told_with_what_is_not(seconds: float, lowest: int, told: str) -> None:
    with pytest.raises(SamplingError, match=told):
        check_windows(RELEASED, SongRequest(seconds=seconds), lengths(seconds), lowest)
    check_windows(RELEASED, SongRequest(seconds=seconds), lengths(seconds), 2)
    check_windows(RELEASED, SongRequest(seconds=6.0), lengths(6.0), lowest)


def test_a_level_that_no_graph_reaches() -> None:
    graphs = {f"{kind}_{n}" for kind in ("prefill", "step", "condition", "vqvae_decode") for n in range(3)}
    assert lowest_level(TINY, graphs) == 0
    assert lowest_level(TINY, graphs - {"step_1"}) == 2
    assert lowest_level(TINY, graphs - {"vqvae_decode_2"}) == 0
    assert lowest_level(TINY, graphs - {"condition_2"}) is None
    assert lowest_level(replace(TINY, priors=TINY.priors[:2]), graphs) is None
