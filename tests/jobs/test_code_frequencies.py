"""What the frequencies of codes in other songs tell, by hand, and that few codes do not flatter them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.data.catalogue import SongEntry
from jukebox_deploy.data.code_cache import CodeCache, CodedSong
from jukebox_deploy.jobs.evaluation.code_frequencies import score_by_frequency
from tests.data.song_folders import noise, write_sound

RATE = 8000
SIZE = 512


@pytest.fixture
def coded(tmp_path: Path):
    """Songs of one level with given codes."""
    cache = CodeCache(tmp_path / "codes", "x", (4,), RATE)

    def song(*codes: int) -> CodedSong:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.wav"
        write_sound(path, noise(0.1, rate=RATE), RATE)
        return cache.store(
            SongEntry(path, path.name, "", (), "", RATE, 4 * len(codes), 1), 4 * len(codes), [np.array(codes)]
        )

    return song


def test_other_songs_are_counted_and_one_is_added(coded):
    """Of the second and third song: code 0 three times, 1 once, 2 never; 4 codes and 3 added ones are 7."""
    songs = [coded(2, 2, 2), coded(0, 0), coded(0, 1)]
    found = score_by_frequency(0, songs, [(songs[0], np.array([0, 1, 2]))], 3)
    assert found is not None
    assert found.score.bits == pytest.approx(-math.log2(4 / 7) - math.log2(2 / 7) - math.log2(1 / 7))
    assert (found.score.hits, found.score.tokens) == (1, 3)
    assert (found.level, found.songs, found.codes) == (0, 3, 7)
    assert found.to_json()["bits_per_token"] == pytest.approx(found.score.bits / 3)


def test_few_codes_tell_little_and_not_much(coded):
    """Of even codes the best that can be known is 9 bits; 100 of them have an entropy of at most 6.6."""
    random = np.random.default_rng(1)
    songs = [coded(*random.integers(SIZE, size=100).tolist()) for _ in range(2)]
    found = score_by_frequency(0, songs, [(song, song.codes(0)) for song in songs], SIZE)
    assert found is not None
    assert 8.9 < found.score.bits_per_token < 9.5


def test_a_song_alone_has_nothing_to_be_known_by(coded):
    song = coded(1, 2, 3)
    assert score_by_frequency(0, [song], [(song, song.codes(0))], SIZE) is None
