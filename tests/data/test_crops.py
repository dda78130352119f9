"""Crops: a function of seed, step and process; where they lie; and files that fail in the middle of training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.data.catalogue import Catalogue, read_catalogue
from jukebox_deploy.data.crops import AudioCrops, CropSettings
from jukebox_deploy.errors import ConfigError, DataError
from tests.data.song_folders import RAMP_STEP, RATE, noise, ramp, tone, write_sound

LENGTH = 1000
SETTINGS = CropSettings(RATE, LENGTH, batch=4, seed=3)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> Catalogue:
    """Three songs of two channels, 21 crops in all. Not to be changed."""
    folder = tmp_path_factory.mktemp("songs")
    for number, samples in enumerate((1000, 4321, 14_999)):
        write_sound(folder / f"{number}.wav", noise(samples / RATE, number, channels=2))
    return read_catalogue(folder)


def ramp_catalogue(folder, *lengths: int) -> Catalogue:
    """Songs whose samples tell where they are; those of song `i` are negative for odd `i`."""
    for number, length in enumerate(lengths):
        write_sound(folder / f"{number}.wav", ramp(length) * (-1) ** number)
    return read_catalogue(folder)


def starts_of(crops: np.ndarray) -> list[tuple[int, int]]:
    """Song and first sample of crops `[B, 1, T]` of a ramp catalogue; checks that they are whole."""
    found = []
    for crop in crops[:, 0]:
        np.testing.assert_array_equal(np.diff(np.abs(crop)), np.float32(RAMP_STEP))
        found.append((int(crop[0] < 0), round(abs(float(crop[0])) / RAMP_STEP) - 1))
    return found


def test_a_batch_is_the_same_whenever_and_wherever_it_is_made(catalogue):
    crops = AudioCrops(catalogue, SETTINGS)
    first = [crops.batch(step) for step in range(6)]
    assert first[0].shape == (4, 1, LENGTH)
    assert first[0].dtype == np.float32
    again = AudioCrops(catalogue, SETTINGS)
    with ThreadPoolExecutor(3) as pool:
        for step, batch in zip(reversed(range(6)), pool.map(again.batch, reversed(range(6))), strict=True):
            np.testing.assert_array_equal(batch, first[step])
    assert not any(np.array_equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_a_run_that_goes_on_meets_the_batches_of_one_that_was_never_interrupted(catalogue):
    whole, resumed = AudioCrops(catalogue, SETTINGS), AudioCrops(catalogue, SETTINGS)
    batches = [whole.batch(step) for step in range(9)]
    np.testing.assert_array_equal([resumed.batch(step) for step in range(4, 9)], batches[4:])  # within the first epoch


def test_another_seed_gives_other_crops(catalogue):
    other = AudioCrops(catalogue, replace(SETTINGS, seed=4))
    assert not np.array_equal(AudioCrops(catalogue, SETTINGS).batch(0), other.batch(0))


@pytest.mark.parametrize("step", [0, 1, 7])
def test_batches_of_all_processes_are_the_batch_of_one(catalogue, step):
    shares = [AudioCrops(catalogue, replace(SETTINGS, batch=2), rank, 3).batch(step) for rank in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), AudioCrops(catalogue, replace(SETTINGS, batch=6)).batch(step))


def test_an_epoch_without_shifts_hears_every_sample(tmp_path):
    lengths = (4321, 5000)
    crops = AudioCrops(ramp_catalogue(tmp_path, *lengths), replace(SETTINGS, batch=5, shift=False))
    assert crops.batches_per_epoch == 2  # of 5 and 5 crops
    for epoch in range(2):
        heard = [np.zeros(length, bool) for length in lengths]
        for step in range(2):
            for song, start in starts_of(crops.batch(2 * epoch + step)):
                heard[song][start : start + LENGTH] = True
        assert all(song.all() for song in heard)


def test_shifts_reach_all_of_a_song(tmp_path):
    crops = AudioCrops(ramp_catalogue(tmp_path, LENGTH + 30), replace(SETTINGS, batch=64))
    starts = [start for step in range(6) for _, start in starts_of(crops.batch(step))]
    assert set(starts) == set(range(31))


def test_aligned_crops_begin_at_whole_units(tmp_path):
    settings = replace(SETTINGS, batch=64, unit=40)
    crops = AudioCrops(ramp_catalogue(tmp_path, LENGTH + 170), settings)
    starts = [start for step in range(4) for _, start in starts_of(crops.batch(step))]
    assert set(starts) == {0, 40, 80, 120, 160}
    with pytest.raises(ConfigError, match="length: expected a multiple of the unit 48, found 1000"):
        replace(settings, unit=48)


def test_channels_are_mixed_equally(tmp_path):
    channels = np.stack([tone(0.1, frequency=400), tone(0.1, frequency=700)], axis=1)
    write_sound(tmp_path / "song.wav", channels)
    settings = replace(SETTINGS, length=len(channels), batch=1)
    equal = AudioCrops(read_catalogue(tmp_path), settings).batch(0)[0, 0]
    np.testing.assert_allclose(equal, channels.mean(axis=1), atol=1e-6)


def test_songs_of_another_rate_give_crops_of_the_same_length(tmp_path):
    write_sound(tmp_path / "song.wav", tone(1.0, 44_100), 44_100)
    crop = AudioCrops(read_catalogue(tmp_path), SETTINGS).batch(0)[0, 0]
    spectrum = np.abs(np.fft.rfft(crop * np.hanning(LENGTH)))
    assert spectrum.argmax() * RATE / LENGTH == pytest.approx(440, abs=RATE / LENGTH)


def test_songs_shorter_than_a_crop_are_listed(tmp_path):
    crops = AudioCrops(ramp_catalogue(tmp_path, 999, 1000), SETTINGS)
    assert [(s.name, s.reason) for s in crops.skipped] == [("0.wav", "too short, 0.12 s for crops of 0.12 s")]
    assert {song for song, _ in starts_of(crops.batch(0))} == {1}
    with pytest.raises(DataError, match="none of 2 songs is as long as a crop"):
        AudioCrops(read_catalogue(tmp_path), replace(SETTINGS, length=RATE))


def test_a_file_that_fails_is_replaced_and_listed_and_the_others_stay(tmp_path):
    catalogue = ramp_catalogue(tmp_path, 8000, 8000)
    crops = AudioCrops(catalogue, replace(SETTINGS, batch=16))
    before = starts_of(crops.batch(0))
    assert {song for song, _ in before} == {0, 1}
    assert [skipped.name for skipped in crops.skipped] == []
    (tmp_path / "1.wav").write_bytes(b"gone bad")
    after = starts_of(crops.batch(0))
    assert {song for song, _ in after} == {0}
    assert [place for place in before if place[0] == 0] == [b for a, b in zip(before, after, strict=True) if a[0] == 0]
    (skipped,) = crops.skipped
    assert (skipped.name, "is not a sound file" in skipped.reason) == ("1.wav", True)


def test_it_is_an_error_if_nothing_can_be_read(tmp_path):
    crops = AudioCrops(ramp_catalogue(tmp_path, 8000), SETTINGS)
    (tmp_path / "0.wav").unlink()
    with pytest.raises(DataError, match=r"None of 33 crops could be read. The last failure: .*no such sound file"):
        crops.batch(0)


def test_silent_crops_are_drawn_again(tmp_path):
    song = np.zeros(20_000, np.float32)
    song[:2000] = ramp(2000)
    write_sound(tmp_path / "0.wav", song)
    catalogue = read_catalogue(tmp_path, None)
    crops = AudioCrops(catalogue, replace(SETTINGS, batch=32, shift=False))
    assert np.abs(crops.batch(0)).max(axis=(1, 2)).min() > 2.0**-15


def test_silence_is_taken_where_there_is_nothing_else(tmp_path):
    song = np.zeros(200_000, np.float32)
    song[0] = 0.5  # in no crop but the first
    write_sound(tmp_path / "0.wav", song)
    batch = AudioCrops(read_catalogue(tmp_path), replace(SETTINGS, batch=32, shift=False)).batch(0)
    assert not batch.any(axis=(1, 2)).all()


@pytest.mark.parametrize("options", [{"sample_rate": 0}, {"length": 0}, {"batch": 0}, {"seed": -1}])
def test_settings_that_cannot_be(catalogue, options):
    with pytest.raises(ConfigError, match=f"{next(iter(options)).replace('_', ' ')}: expected"):
        AudioCrops(catalogue, replace(SETTINGS, **options))
