"""Stretches of files against the whole song, at the file's rate and at others."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from jukebox_deploy.data.audio_files import read_song, read_stretch
from jukebox_deploy.errors import AudioError
from tests.data.song_folders import FORMATS, RATE, cut_off, noise, write_sound


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("start", [0, 1234, 15_000])
def test_a_stretch_is_what_lies_there(suffix, start, tmp_path):
    path = write_sound(tmp_path / f"song.{suffix}", noise(2.0))
    stretch = read_stretch(path, RATE, start, 1000)
    assert stretch.dtype == np.float32
    whole, _ = soundfile.read(path, dtype="float32")
    # MP3 frames overlap: which one decoding began with shows in the last bit.
    np.testing.assert_allclose(stretch, whole[start : start + 1000], rtol=0, atol=2e-7 if suffix == "mp3" else 0)


@pytest.mark.parametrize(("file_rate", "rate"), [(8000, 16_000), (44_100, 16_000), (22_050, 44_100), (8001, 44_100)])
def test_a_stretch_at_another_rate_is_what_lies_there_in_the_whole_song(file_rate, rate, tmp_path):
    path = write_sound(tmp_path / "song.wav", noise(4.0, rate=file_rate), file_rate)
    song = read_song(path, rate)
    assert len(song) == 4 * rate
    for start, length in ((0, 500), (12_345, 4000), (4 * rate - 700, 700)):
        np.testing.assert_allclose(read_stretch(path, rate, start, length), song[start : start + length], atol=2e-6)


def test_a_tone_keeps_its_pitch_and_its_place(tmp_path):
    times = np.arange(44_100) / 44_100
    path = write_sound(tmp_path / "song.wav", np.sin(2 * np.pi * 440 * times).astype(np.float32), 44_100)
    start, length = 5000, 3000
    expected = np.sin(2 * np.pi * 440 * (start + np.arange(length)) / 16_000)
    np.testing.assert_allclose(read_stretch(path, 16_000, start, length), expected, atol=1e-3)


def test_channels_are_mixed_equally(tmp_path):
    sound = noise(0.5, channels=3)
    path = write_sound(tmp_path / "song.wav", sound)
    np.testing.assert_allclose(read_stretch(path, RATE, 0, 4000), sound.mean(axis=1), atol=1e-7)
    np.testing.assert_allclose(read_song(path, RATE), sound.mean(axis=1), atol=1e-7)


def test_songs_longer_than_a_block_are_whole(tmp_path):
    sound = noise(70.0)
    path = write_sound(tmp_path / "song.wav", sound)
    np.testing.assert_array_equal(read_song(path, RATE), sound)


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_files_that_end_too_early_are_errors(suffix, tmp_path):
    path = cut_off(write_sound(tmp_path / f"song.{suffix}", noise(20.0)))
    assert read_stretch(path, RATE, 0, RATE).any()
    with pytest.raises(AudioError, match="song"):
        read_stretch(path, RATE, 18 * RATE, RATE)
    with pytest.raises(AudioError, match="song"):
        read_song(path, RATE)


def test_a_stretch_beyond_the_end_is_an_error(tmp_path):
    path = write_sound(tmp_path / "song.wav", noise(1.0))
    with pytest.raises(AudioError, match="cut off, 10 samples are missing"):
        read_stretch(path, RATE, RATE - 90, 100)


def test_samples_that_are_no_numbers_are_errors(tmp_path):
    sound = noise(1.0)
    sound[5000] = np.inf
    path = write_sound(tmp_path / "song.wav", sound)
    assert len(read_stretch(path, RATE, 0, 5000)) == 5000
    for read in (lambda: read_stretch(path, RATE, 4000, 2000), lambda: read_song(path, RATE)):
        with pytest.raises(AudioError, match="not finite"):
            read()
