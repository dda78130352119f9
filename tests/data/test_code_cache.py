"""Codes on disk: made once, for one VQ-VAE and one state of the file, whole or made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.data.code_cache import CodeCache, encode_catalogue
from jukebox_deploy.errors import DataError
from tests.data.coded_songs import SECOND_SONG, cache_in, place_codes, ramp_songs
from tests.data.song_folders import ramp, write_sound
from tests.runtime.song_cases import RATE, VQVAE

TOP = VQVAE.hop_lengths[-1]


class CountingEncoder:
    """`place_codes`, and the lengths that it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, audio: np.ndarray, level: int) -> np.ndarray:
        self.calls.append((len(audio), level))
        return place_codes(audio, level)


def test_all_levels_end_with_the_last_whole_top_code(tmp_path):
    catalogue = ramp_songs(tmp_path / "songs", 10 * TOP + 7, 4 * TOP)
    coded = encode_catalogue(catalogue, cache_in(tmp_path / "codes"), encoder := CountingEncoder())
    assert encoder.calls == [(length, level) for length in (10 * TOP, 4 * TOP) for level in range(3)]
    first, second = coded.songs
    assert (first.samples, second.samples) == (10 * TOP + 7, 4 * TOP)
    assert first.lengths == (40, 20, 10)
    for level, hop in enumerate(VQVAE.hop_lengths):
        assert first.codes(level).tolist() == list(range(10 * TOP // hop))
        assert second.codes(level).tolist() == [SECOND_SONG + i for i in range(4 * TOP // hop)]
    part = first.codes(0, 3, 9)
    assert part.dtype == np.int64
    assert part.tolist() == [3, 4, 5, 6, 7, 8]


def test_songs_of_another_rate_are_encoded_at_the_models(tmp_path):
    write_sound(tmp_path / "songs" / "0.wav", ramp(4 * 2 * TOP), 2 * RATE)
    catalogue = ramp_songs(tmp_path / "songs")
    (song,) = encode_catalogue(
        catalogue, cache_in(tmp_path / "codes"), lambda audio, level: audio[:: 1 << level + 2].astype(int)
    ).songs
    assert song.samples == 4 * TOP


def test_a_song_is_encoded_once(tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200, 300), cache_in(tmp_path / "codes")
    told: list[tuple[int, int]] = []
    first = encode_catalogue(catalogue, cache, place_codes, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    encoder = CountingEncoder()
    assert encode_catalogue(catalogue, cache, encoder) == first == cache.coded_songs(catalogue)
    assert encoder.calls == []


def test_a_run_that_was_interrupted_goes_on(tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200, 300, 400), cache_in(tmp_path / "codes")

    def interrupted(audio: np.ndarray, level: int) -> np.ndarray:
        if (len(audio), level) == (288, 1):
            raise KeyboardInterrupt
        return place_codes(audio, level)

    with pytest.raises(KeyboardInterrupt):
        encode_catalogue(catalogue, cache, interrupted)
    assert [skipped.name for skipped in cache.coded_songs(catalogue).skipped] == ["1.wav", "2.wav"]
    coded = encode_catalogue(catalogue, cache, encoder := CountingEncoder())
    assert [length for length, level in encoder.calls if level == 0] == [288, 400]
    assert [song.entry.name for song in coded.songs] == ["0.wav", "1.wav", "2.wav"]
    assert coded == encode_catalogue(catalogue, cache_in(tmp_path / "codes"), place_codes)
    assert len(list(cache.folder.iterdir())) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: replace(cache, fingerprint="other weights"),
        lambda cache: replace(cache, sample_rate=RATE // 2),
        lambda cache: replace(cache, hop_lengths=(2, 4, 8)),
    ],
    ids=["weights", "rate", "hops"],
)
def test_another_vqvae_has_codes_of_its_own(change: Callable[[CodeCache], CodeCache], tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200), cache_in(tmp_path / "codes")
    encode_catalogue(catalogue, cache, place_codes)
    assert cache.coded_songs(catalogue).songs
    assert change(cache).coded_songs(catalogue).songs == ()


def test_a_song_that_changed_is_encoded_again(tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200, 200), cache_in(tmp_path / "codes")
    encode_catalogue(catalogue, cache, place_codes)
    os.utime(tmp_path / "songs" / "0.wav", ns=(0, 0))
    write_sound(tmp_path / "songs" / "1.wav", ramp(300), RATE)
    assert cache.coded_songs(catalogue).songs == ()
    encode_catalogue(ramp_songs(tmp_path / "songs"), cache, encoder := CountingEncoder())
    assert [length for length, level in encoder.calls if level == 0] == [192, 288]


def flip_last_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-2],
    "header cut off": lambda content: content[:20],
    "something else": lambda content: b"x" * 99,
    "one bit": flip_last_byte,
    "metadata": lambda content: content.replace(b"samples", b"simples"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_codes_are_made_again(damage, tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200, 300), cache_in(tmp_path / "codes")
    whole = encode_catalogue(catalogue, cache, place_codes)
    path = whole.songs[1].path
    expected = [whole.songs[1].codes(level).tolist() for level in range(3)]
    path.write_bytes(damage(path.read_bytes()))
    again = encode_catalogue(catalogue, cache, encoder := CountingEncoder())
    assert encoder.calls == [(288, level) for level in range(3)]
    assert again == whole
    assert [again.songs[1].codes(level).tolist() for level in range(3)] == expected


def test_codes_that_went_away_are_an_error_when_they_are_read(tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200), cache_in(tmp_path / "codes")
    (song,) = encode_catalogue(catalogue, cache, place_codes).songs
    song.path.unlink()
    with pytest.raises(DataError, match=r"the codes of 0.wav cannot be read .* start again"):
        song.codes(0, 0, 4)


def test_songs_that_cannot_be_encoded_are_listed(tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200, TOP - 1, 200, 200), cache_in(tmp_path / "codes")
    (tmp_path / "songs" / "2.wav").write_bytes(b"gone bad")
    (tmp_path / "songs" / "3.wav").unlink()
    told: list[tuple[int, int]] = []
    coded = encode_catalogue(catalogue, cache, place_codes, lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [song.entry.name for song in coded.songs] == ["0.wav"]
    short, broken, gone = coded.skipped
    assert "less than one top-level code" in short.reason
    assert "is not a sound file" in broken.reason
    assert "no such sound file" in gone.reason


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda audio, level: place_codes(audio, level)[:-1], r"level 0 has codes of shape \[47\], expected \[48\]"),
        (lambda audio, level: place_codes(audio, level) - 1, "codes must be 0 to 65535, found -1 to"),
        (lambda audio, level: place_codes(audio, level) + 65_500, "codes must be 0 to 65535, found 65500 to 65547"),
    ],
)
def test_codes_that_cannot_be_are_refused(encode, message, tmp_path):
    catalogue, cache = ramp_songs(tmp_path / "songs", 200), cache_in(tmp_path / "codes")
    with pytest.raises(DataError, match=message):
        encode_catalogue(catalogue, cache, encode)
    assert not cache.folder.exists()
