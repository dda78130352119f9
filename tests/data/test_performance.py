"""Whole songs as sound: levels, repeats, and whether artists, genres and keys can be heard."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.composition import compose_outline
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.performance import PEAK, _Performance, perform
from jukebox_deploy.data.synthesis.score import Arrangement, Drum, Hit, Note, Part, SectionKind
from jukebox_deploy.jobs.samples.discriminant import predict_held_out
from jukebox_deploy.jobs.samples.sound_features import band_levels, pitch_class_energies, pitch_class_levels
from tests.data.short_songs import RATE, short_song

INTRO, REFRAIN = SectionKind.INTRO, SectionKind.REFRAIN


@pytest.mark.parametrize("rate", [8000, 44_100])
@pytest.mark.parametrize("artist", ARTISTS)
def test_levels(artist, rate):
    song = short_song(1, artist=artist, form=(INTRO,))
    samples = perform(song, rate)
    assert samples.dtype == np.float32
    assert len(samples) == round(song.seconds * rate)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() == pytest.approx(PEAK, abs=1e-6)
    assert abs(samples.mean()) < 1e-3
    assert np.sqrt((samples**2).mean()) > 0.03
    assert abs(samples[0]) < 1e-3
    assert abs(samples[-1]) < 1e-4


def test_the_same_song_is_the_same_bytes_and_another_is_not():
    first, again = (perform(short_song(2), RATE) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != perform(short_song(3), RATE).tobytes()


def test_on_a_grid_a_beat_begins_where_a_code_does():
    """Half a second of a refrain and its repeat are the same samples, whole steps of the grid apart."""
    plan = replace(outline(3, 5, grid=0.032), form=(REFRAIN, REFRAIN), artist=ARTISTS["eight bit harbour"])
    song = compose_outline(plan)
    samples, begin = perform(song, 8000), round(song.time_of(song.section_beats[1]) * 8000)
    assert begin % 256 == 0
    # Not the very beginning, where the first refrain's last sounds die away.
    np.testing.assert_allclose(samples[8000:24_000], samples[begin + 8000 : begin + 24_000], atol=1e-3)


def test_a_solo_is_silent_between_two_lines():
    """No echo, no accompaniment: in the breath after a line there is nothing."""
    plan = replace(outline(3, 5, arrangement=Arrangement.SOLO), form=(REFRAIN,), artist=ARTISTS["paper orchestra"])
    song = compose_outline(plan)
    last = max((s for s in song.sections[0].syllables if s.after.endswith("\n")), key=lambda s: s.start + s.length)
    samples, end = perform(song, RATE), song.time_of(last.start + last.length)
    breath = samples[round((end + 0.05) * RATE) : round((end + 0.2) * RATE)]
    assert np.abs(breath).max() < 1e-3
    assert np.abs(samples).max() == pytest.approx(PEAK, abs=1e-6)


def test_instruments_are_the_same_in_songs_of_other_seeds():
    plans = [replace(outline(seed, 5), form=(INTRO,), artist=ARTISTS["the copper strings"]) for seed in (1, 2)]
    first, second = (_Performance(compose_outline(plan), RATE) for plan in plans)
    note, hit = Note(Part.LEAD, 0, 1, 60), Hit(Drum.SNARE, 0)
    count = min(len(first._note(note)), len(second._note(note))) // 2
    np.testing.assert_array_equal(first._note(note)[:count], second._note(note)[:count])
    np.testing.assert_array_equal(first._hit(hit), second._hit(hit))


def test_a_refrain_sounds_the_same_when_it_comes_again():
    song = short_song(4, artist="eight bit harbour", form=(REFRAIN, INTRO, REFRAIN))
    samples = perform(song, RATE)
    begins = [round(beats * song.beat_seconds * RATE) for beats in song.section_beats]
    first, second = (samples[begin + RATE // 2 : begin + 4 * RATE] for begin in (begins[0], begins[2]))
    similarity = max(np.corrcoef(first[9:-9], np.roll(second, shift)[9:-9])[0, 1] for shift in (-1, 0, 1))
    assert similarity > 0.9


def told_apart(features: list[np.ndarray], labels: list[str]) -> float:
    """Share of songs whose label is found by a discriminant that was made without the song."""
    found = predict_held_out(np.array(features), labels, range(len(labels)))
    return float(np.mean([one == other for one, other in zip(found, labels, strict=True)]))


@pytest.fixture(scope="module")
def songs_of_all():
    """Eight refrains of each artist, spread over all genres, and their sound."""
    genres = list(GENRES)
    names = [artist for artist in ARTISTS for _ in range(8)]
    songs = [short_song(n, artist=name, genre=genres[n % len(genres)]) for n, name in enumerate(names)]
    return [(song, perform(song, RATE)) for song in songs]


def test_artists_are_told_apart_by_their_spectra(songs_of_all):
    """Chance is one in six."""
    features = [band_levels(samples, RATE) for _, samples in songs_of_all]
    assert told_apart(features, [song.artist for song, _ in songs_of_all]) > 0.75


def test_genres_are_told_apart_by_their_pitches(songs_of_all):
    """Chance is one in six."""
    features = [pitch_class_levels(pitch_class_energies(samples, RATE)) for _, samples in songs_of_all]
    assert told_apart(features, [song.genre for song, _ in songs_of_all]) > 0.75


def test_what_sounds_lies_on_the_scale(songs_of_all):
    """Chance: as many twelfths as a scale has pitches, at most 0.58."""
    shares: dict[str, list[float]] = {genre: [] for genre in GENRES}
    for song, samples in songs_of_all:
        allowed = song.scale.pitch_classes(song.tonic)
        shares[song.genre].append(pitch_class_energies(samples, RATE)[list(allowed)].sum())
    assert all(np.mean(share) > 0.8 for share in shares.values()), shares
