from __future__ import annotations

import math

import pytest

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.presets import RELEASED_VQVAE
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongLengths, SongRequest, whole_samples


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1 is invalid"),
        ({"temperature": math.nan}, "temperature nan is invalid"),
        ({"top_p": 0.0}, "top-p 0.0 is invalid"),
        ({"top_p": 1.1}, "top-p 1.1 is invalid"),
        ({"top_k": 0}, "top-k 0 is invalid"),
        ({"top_k": 5, "top_p": 0.5}, "exclude each other"),
    ],
)
def test_bad_settings(arguments, message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        LevelSettings(**arguments)


def test_settings_at_their_limits() -> None:
    assert LevelSettings(0.0, top_p=1.0) == LevelSettings(0, None, 1)
    assert LevelSettings(temperature=3.0, top_k=1).top_k == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.0}, "seconds 0.0 is invalid"),
        ({"seconds": -3.0}, "seconds -3.0 is invalid"),
        ({"seconds": math.inf}, "seconds inf is invalid"),
        ({}, "mode ancestral needs the length .* with --seconds"),
        ({"seconds": 1.0, "total_seconds": -1.0}, "--total-seconds -1.0 is invalid"),
        ({"seconds": 1.0, "source_seconds": 0.0}, "--prompt-seconds 0.0 is invalid"),
        ({"seconds": 1.0, "offset_seconds": -1.0}, "--offset -1.0 is invalid"),
        ({"seconds": 1.0, "seed": -1}, "seed -1 is out of range"),
        ({"seconds": 1.0, "seed": 2**64}, "seed 18446744073709551616 is out of range"),
        ({"seconds": 1.0, "song": 2**32}, "song 4294967296 is out of range"),
        ({"seconds": 1.0, "artist": "\udcff"}, r"--artist '\\udcff' is not text in UTF-8"),
        ({"seconds": 1.0, "lyrics": "la \ud800"}, "--lyrics 'la .* is not text in UTF-8"),
        ({"seconds": 1.0, "mode": Mode.PRIMED, "source": "\udcff.wav"}, "the path .* rename the file"),
        ({"seconds": 1.0, "source": "a.wav"}, "takes no source"),
        ({"seconds": 1.0, "mode": Mode.PRIMED}, "mode primed starts from a sound file"),
        ({"mode": Mode.UPSAMPLE}, "mode upsample starts from a song folder"),
        ({"mode": Mode.CONTINUE, "source": "a"}, "mode continue needs the length"),
    ],
)
def test_bad_requests(arguments, message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        SongRequest(**arguments)


def test_missing_levels_have_default_settings() -> None:
    request = SongRequest(seconds=1.0, levels=(LevelSettings(0.5),))
    assert [request.settings(level).temperature for level in range(3)] == [0.5, 0.99, 0.99]


def test_lengths_are_rounded_down_to_whole_top_codes() -> None:
    assert whole_samples(20.0, RELEASED_VQVAE) == 882_000 // 128 * 128
    assert whole_samples(0.002, RELEASED_VQVAE) == 0
    for codes in range(1, 2000):
        assert whole_samples(codes * 128 / 44_100, RELEASED_VQVAE) == codes * 128


def test_levels_to_sample_go_from_the_top_down() -> None:
    lengths = SongLengths(given=(0, 5, 10), totals=(40, 20, 10))
    assert lengths.levels_to_sample(0) == [1, 0]
    assert lengths.levels_to_sample(1) == [1]
