from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.config import LabelRules, TimingConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.graphs import GraphOptions, declare_condition, declare_lyrics
from jukebox_deploy.labels.rows import SongLabels, SongText, label_song, window_labels
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.presets import PRESETS
from tests.labels.label_cases import RATE, TOP_HOP_LENGTH, label_row, small_prior

both_rules = pytest.mark.parametrize("rules", list(LabelRules), ids=str)
all_priors = pytest.mark.parametrize(
    "prior",
    [pytest.param(p, id=f"{name}-{p.level}") for name, config in PRESETS.items() for p in config.priors],
)


def songs_of(golden, rules, vocabulary, prior):
    for meta in golden[rules]["labels"]["metas"]:
        text = SongText(meta["artist"], meta["genre"], meta["lyrics"])
        yield label_song(prior, vocabulary, text, total_length=meta["total_length"], offset=meta["offset"]).labels


@both_rules
def test_songs_equal_the_original(rules, golden, vocabulary):
    expected = golden[rules]["labels"]
    window = expected["sample_length"] // TOP_HOP_LENGTH
    prior = small_prior(rules, window)
    songs = list(songs_of(golden, rules, vocabulary, prior))
    assert [list(song.lyric_tokens) for song in songs] == expected["full_tokens"]
    for song, row in zip(songs, expected["y"], strict=True):
        labels = window_labels(prior, RATE, TOP_HOP_LENGTH, song, 0)
        assert label_row(labels, song, 0, TOP_HOP_LENGTH, window) == row


@both_rules
def test_windows_equal_the_original(rules, golden, vocabulary):
    prior = small_prior(rules, 512)
    songs = list(songs_of(golden, rules, vocabulary, prior))
    for case in golden[rules]["get_y"]:
        for song, row, indices in zip(songs, case["y"], case["indices"], strict=True):
            labels = window_labels(prior, RATE, TOP_HOP_LENGTH, song, case["start"])
            assert label_row(labels, song, case["start"], TOP_HOP_LENGTH, 512) == row
            assert labels.lyrics is not None
            assert labels.lyrics.indices.tolist() == indices


def test_end_to_end_rows_equal_the_original(golden):
    case = golden["end_to_end"]
    prior = small_prior(LabelRules.NAMES, 64, lyric_count=24, timing=TimingConfig(8, 0.1, 3.0))
    for number, tokens in enumerate(case["full_tokens"]):
        total, offset, _, artist, genre = case["label_ids"][2][number][:5]
        song = SongLabels(total, offset, artist, (genre,), tuple(tokens))
        labels = window_labels(prior, RATE, TOP_HOP_LENGTH, song, case["start"])
        assert label_row(labels, song, case["start"], TOP_HOP_LENGTH, 64) == case["rows"][number]
        assert labels.lyrics is not None
        assert labels.lyrics.indices.tolist() == case["indices"][number]


@all_priors
def test_arrays_are_what_the_graphs_take(prior):
    song = SongLabels(total_length=100 * RATE, artist=3, genres=(2,), lyric_tokens=tuple(range(1, 70)))
    arrays = window_labels(prior, RATE, TOP_HOP_LENGTH, song, 0).arrays()
    tables = [declare_condition(prior), declare_lyrics(prior, GraphOptions())]
    wanted = {tensor.name: tensor for table in tables if table for tensor in table.inputs}
    wanted.pop("upper_codes", None)
    shared_sequence = {"lyric_tokens"} if prior.lyric_prefix else set()
    assert set(arrays) == set(wanted) | shared_sequence
    for name, tensor in wanted.items():
        assert arrays[name].shape == tensor.dims[1:]
        assert arrays[name].dtype == np.dtype(tensor.dtype)


def test_unused_genre_slots_are_minus_one():
    song = SongLabels(total_length=10**6, artist=1, genres=(7, 1))
    labels = window_labels(small_prior(LabelRules.WORDS, 64), RATE, TOP_HOP_LENGTH, song, 0)
    assert labels.arrays()["genres"].tolist() == [7, 1, -1, -1, -1]


def test_window_start_moves_offset_bins_and_lyrics():
    prior = small_prior(LabelRules.NAMES, 64, timing=TimingConfig(64, 1.0, 100.0))
    song = SongLabels(total_length=10 * RATE, genres=(1,), lyric_tokens=tuple(i % 79 for i in range(400)))
    later = replace(song, offset=1000 * TOP_HOP_LENGTH)
    moved, shifted = (window_labels(prior, RATE, TOP_HOP_LENGTH, s, n) for s, n in ((song, 1000), (later, 0)))
    first = window_labels(prior, RATE, TOP_HOP_LENGTH, song, 0)
    for name, array in moved.arrays().items():
        np.testing.assert_array_equal(array, shifted.arrays()[name])
    for name in ("relative_bins", "lyric_tokens"):
        assert (moved.arrays()[name] != first.arrays()[name]).any()
    assert moved.arrays()["total_bin"] == first.arrays()["total_bin"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"artist": 9}, "no artist #9: the model has #0 to #8"),
        ({"artist": -1}, "no artist #-1"),
        ({"genres": (8,)}, "no genre #8"),
        ({"genres": (1, 2)}, "2 genres, the model takes at most 1"),
        ({"lyric_tokens": (79,)}, "0 to 78"),
        ({"offset": 10**6}, "outside the song"),
    ],
)
def test_labels_that_a_model_lacks(change, message):
    song = replace(SongLabels(total_length=10**6), **change)
    with pytest.raises(LabelError, match=message):
        window_labels(small_prior(LabelRules.NAMES, 64), RATE, TOP_HOP_LENGTH, song, 0)


def test_unknown_names_and_characters_become_warnings(vocabulary):
    song = label_song(
        small_prior(LabelRules.NAMES, 64),
        vocabulary,
        SongText("Zo Laine", "Polka", "1 + 1"),
        total_length=10**6,
    )
    assert (song.labels.artist, song.labels.genres) == (0, (0,))
    assert ["zo lane" in w or "Polka" in w or "'+'" in w for w in song.warnings] == [True] * 3


def test_priors_without_labels_take_no_names():
    prior = replace(small_prior(LabelRules.NAMES, 64), labels=None)
    song = label_song(prior, Vocabulary(), SongText("Nobody", "Nothing", "la la"), total_length=10**6)
    assert song.warnings == ()
    assert list(window_labels(prior, RATE, TOP_HOP_LENGTH, song.labels, 0).arrays()) == ["lyric_tokens"]
