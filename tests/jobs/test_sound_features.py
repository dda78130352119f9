"""Features of sounds whose pitches and levels are known."""

from __future__ import annotations

import numpy as np
import pytest

from jukebox_deploy.data.synthesis.scales import PITCH_CLASSES, frequency
from jukebox_deploy.errors import AudioError
from jukebox_deploy.jobs.samples.sound_features import (
    BANDS,
    PITCH_FLOOR,
    band_levels,
    pitch_class_energies,
    pitch_class_levels,
)

RATE = 16_000


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("pitch", [45, 52, 60, 70, 75])
def test_a_tone_has_one_pitch_class(pitch, rate):
    energies = pitch_class_energies(tone(frequency(pitch), rate=rate), rate)
    assert PITCH_CLASSES[energies.argmax()] == PITCH_CLASSES[pitch % 12]
    assert energies.max() > 0.95
    assert energies.sum() == pytest.approx(1)


def test_energies_of_tones_together_are_as_their_squares():
    energies = pitch_class_energies(tone(frequency(57)) + 2 * tone(frequency(64)), RATE)
    assert energies[64 % 12] / energies[57 % 12] == pytest.approx(4, rel=0.02)


def test_silence_has_all_pitches_alike():
    np.testing.assert_allclose(pitch_class_energies(np.zeros(RATE), RATE), 1 / 12)


def test_a_pitch_that_is_missing_lies_at_the_floor():
    levels = pitch_class_levels(np.array([[0.5, 0.1, 0.4, *[0] * 9]]))
    np.testing.assert_allclose(levels[0, :2], [-3, -10], atol=0.1)
    np.testing.assert_allclose(levels[0, 3:], PITCH_FLOOR)


def test_the_band_of_a_tone_is_the_loudest():
    edges = np.geomspace(80, RATE / 2, BANDS + 1)
    for hertz in (200, 1000, 5000):
        means = band_levels(tone(hertz), RATE)[:BANDS]
        assert edges[means.argmax()] <= hertz < edges[means.argmax() + 1]


def test_a_beating_tone_spreads_its_band_over_time():
    steady = tone(1000, 4)
    beating = steady * (0.5 + 0.45 * np.sin(2 * np.pi * np.arange(len(steady)) / RATE))
    band = int(band_levels(steady, RATE)[:BANDS].argmax())
    assert band_levels(steady, RATE)[BANDS + band] < 0.1
    assert band_levels(beating, RATE)[BANDS + band] > 3


def test_loudness_changes_nothing():
    sound = tone(300) + np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    for feature in (band_levels, pitch_class_energies):
        np.testing.assert_allclose(feature(sound, RATE), feature(sound / 50, RATE), atol=1e-4)


@pytest.mark.parametrize("feature", [band_levels, pitch_class_energies])
def test_a_moment_cannot_be_judged(feature):
    with pytest.raises(AudioError, match=r"0\.5 s is too short to be judged; give at least 0\.512 s"):
        feature(np.zeros(8000), RATE)
