"""Which songs are evaluated on, and how pieces and windows are spread over them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.data.audio_files import read_song
from jukebox_deploy.data.catalogue import CatalogueFilters, read_catalogue
from jukebox_deploy.data.code_cache import CodeCache, encode_catalogue
from jukebox_deploy.errors import DataError
from jukebox_deploy.jobs.evaluation.data import DataChoice, evaluation_windows, pieces_of_sound, some_songs
from jukebox_deploy.presets import preset
from tests.data.song_folders import ramp, write_sound
from tests.jobs.small_evaluation import VOCABULARY, prior_of, upsampler_config, write_songs

TINY = preset("tiny")


def test_held_out_songs_are_those_that_training_leaves_out(tmp_path):
    write_songs(tmp_path, 12)
    everything = DataChoice(tmp_path, held_out=False).songs()
    trained, held_out = everything.split(0.7)
    assert DataChoice(tmp_path, train_fraction=0.7).songs() == held_out
    assert set(held_out.songs) | set(trained.songs) == set(everything.songs)
    assert 0 < len(held_out.songs) < 12


def test_a_single_song_is_not_held_out(tmp_path):
    write_songs(tmp_path, 1)
    with pytest.raises(DataError, match="of 1 songs none is held out; evaluate on --all"):
        DataChoice(tmp_path, train_fraction=1).songs()


def test_pieces_come_from_the_middle_and_are_whole_top_codes(tmp_path):
    rate, hop = TINY.vqvae.sample_rate, TINY.vqvae.hop_length(2)
    write_sound(tmp_path / "a.wav", ramp(rate), rate)
    write_sound(tmp_path / "b.wav", ramp(rate), rate)
    songs = DataChoice(tmp_path, held_out=False).songs()
    (piece,) = pieces_of_sound(songs, TINY, 0.5)
    assert len(piece) == round(rate / 2 / hop) * hop
    whole = read_song(tmp_path / "a.wav", rate)
    start = int(np.flatnonzero(whole == piece[0])[0])
    np.testing.assert_array_equal(piece, whole[start : start + len(piece)])
    assert start == (rate // hop * hop - len(piece)) // 2


def test_what_short_songs_lack_is_taken_from_others(tmp_path):
    rate = TINY.vqvae.sample_rate
    for name, seconds in (("a", 0.5), ("b", 12.0)):
        write_sound(tmp_path / f"{name}.wav", ramp(round(seconds * rate)), rate)
    songs = DataChoice(tmp_path, held_out=False).songs()
    lengths = [len(piece) / rate for piece in pieces_of_sound(songs, TINY, 10)]
    assert lengths == pytest.approx([0.5, 9.5], abs=0.01)


def test_songs_shorter_than_a_code_are_nothing_to_hear(tmp_path):
    write_sound(tmp_path / "a.wav", ramp(100), 44_100)
    with pytest.raises(DataError, match="no song is as long as one code"):
        list(pieces_of_sound(read_catalogue(tmp_path, CatalogueFilters(min_seconds=0)), TINY, 10))


@pytest.mark.parametrize("held_out", [True, False])
def test_a_folder_of_what_cannot_be_used_is_told_of(held_out, tmp_path):
    write_sound(tmp_path / "a.wav", ramp(100), 44_100)
    with pytest.raises(DataError, match=r"none of 1 files can be used; the first, a\.wav: too short"):
        DataChoice(tmp_path, held_out=held_out).songs()


def test_some_songs_are_spread_over_all(tmp_path):
    songs = DataChoice(write_songs(tmp_path, 9), held_out=False).songs()
    assert [song.name for song in some_songs(songs, 3).songs] == ["0.wav", "4.wav", "8.wav"]
    assert some_songs(songs, 100) == replace(songs)


def test_windows_are_spread_over_all_songs_with_their_labels(tmp_path):
    config = upsampler_config()
    songs = DataChoice(write_songs(tmp_path / "songs"), held_out=False).songs()
    cache = CodeCache(tmp_path / "codes", "x", config.vqvae.hop_lengths, config.vqvae.sample_rate)

    def number(audio, level):
        """Codes that tell the song."""
        return np.full(len(audio) // config.vqvae.hop_length(level), int(abs(audio[0]) * 1e6) % 32)

    coded = encode_catalogue(songs, cache, number)
    windows = evaluation_windows(coded, config, 0, VOCABULARY, 5).batches
    assert len(windows) == 5
    assert {batch["codes"].shape for batch in windows} == {(1, prior_of(config).window)}
    assert windows[0]["artist"] == 1  # of the first song
    assert windows[-1]["artist"] == 2  # of the last one
    assert len({int(batch["codes"][0, 0]) for batch in windows}) >= 3
    everything = evaluation_windows(coded, config, 0, VOCABULARY, 10**6).batches
    assert len(everything) == sum(song.lengths[0] // prior_of(config).window for song in coded.songs)
