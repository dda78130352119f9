"""Shares of energy on scales, for energies that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.jobs.samples.scale_shares import MeanShare, compare_scale_shares, own_and_other_shares, scale_share
from jukebox_deploy.jobs.samples.song_clips import ClipFormat

FORM = ClipFormat(16_000, 16_000)
EVEN = np.full((1, 12), 1 / 12)


def on_scale(genre: str, tonic: int = 0) -> np.ndarray:
    """All pitch classes of a scale alike, and no others `[12]`."""
    chosen = GENRES[genre]
    energies = np.zeros(12)
    energies[list(chosen.scale.pitch_classes(chosen.tonics[tonic]))] = 1
    return energies / energies.sum()


@pytest.mark.parametrize("genre", GENRES)
@pytest.mark.parametrize("tonic", [0, 1])
def test_either_tonic_of_a_genre_will_do(genre, tonic):
    assert scale_share(on_scale(genre, tonic)[None], GENRES[genre]) == pytest.approx(1)


@pytest.mark.parametrize("genre", GENRES)
def test_even_energies_are_on_a_scale_by_its_size(genre):
    assert scale_share(EVEN, GENRES[genre]) == pytest.approx(len(GENRES[genre].scale.steps) / 12)


def test_own_and_other_scales():
    own, others = own_and_other_shares(np.stack([on_scale(genre) for genre in GENRES]), list(GENRES))
    np.testing.assert_allclose(own, 1)
    assert (others < 0.85).all()
    by_hand = [scale_share(on_scale("folk")[None], genre)[0] for name, genre in GENRES.items() if name != "folk"]
    assert others[list(GENRES).index("folk")] == pytest.approx(np.mean(by_hand))


def test_a_mean_has_the_error_of_its_size():
    share = MeanShare.of(np.array([0.4, 0.6] * 50))
    assert share.mean == pytest.approx(0.5)
    assert share.error == pytest.approx(1.96 * 0.1 / math.sqrt(100), rel=0.01)
    assert MeanShare.of(np.array([0.3])).error is None


def test_samples_are_compared_with_songs_and_with_chance():
    asked = ["folk", "folk", "folk", "blues"]
    samples = np.stack([0.5 * on_scale(genre) + 0.5 / 12 for genre in asked])
    corpus = np.stack([on_scale(genre) for genre in GENRES])
    shares = compare_scale_shares((samples, asked), (corpus, list(GENRES)), FORM)
    assert shares is not None
    assert shares.samples == 4
    chance = (3 * 7 + 6) / 4 / 12  # folk has seven pitch classes, blues six
    assert shares.asked.mean == pytest.approx(0.5 + 0.5 * chance)
    assert shares.margin.mean == pytest.approx(shares.asked.mean - shares.others.mean)
    assert shares.corpus == pytest.approx(1)
    assert shares.noise == pytest.approx(chance, abs=0.05)
    assert chance < shares.random < chance + 0.1  # of two tonics the better one counts


def test_the_corpus_counts_genres_as_the_samples_do():
    """Songs of a genre that nobody asked for do not count, however many there are."""
    corpus = np.stack([on_scale("folk"), *[np.full(12, 1 / 12)] * 9])
    shares = compare_scale_shares((EVEN, ["folk"]), (corpus, ["folk", *["dance"] * 9]), FORM)
    assert shares is not None
    assert shares.corpus == pytest.approx(1)


def test_genres_of_other_corpora_have_no_known_scale():
    assert compare_scale_shares((EVEN, ["polka"]), (EVEN, ["folk"]), FORM) is None
    assert compare_scale_shares((EVEN, ["folk"]), (EVEN, ["polka"]), FORM) is None
    mixed = compare_scale_shares((np.repeat(EVEN, 2, axis=0), ["polka", "folk"]), (EVEN, ["folk"]), FORM)
    assert mixed is not None
    assert mixed.samples == 1
