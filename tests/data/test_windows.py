"""Windows of codes: aligned between levels, labelled as the sampler labels them, the same in every run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.config import LabelRules, PriorConfig, TimingConfig
from jukebox_deploy.data.catalogue import read_catalogue
from jukebox_deploy.data.code_cache import CodedSongs, encode_catalogue
from jukebox_deploy.data.windows import CodeWindows, WindowBatch, WindowSettings
from jukebox_deploy.errors import ConfigError, DataError
from jukebox_deploy.labels.rows import SongText, label_song, window_labels
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary
from tests.data.coded_songs import SECOND_SONG, cache_in, place_codes, ramp_songs
from tests.data.song_folders import write_table
from tests.runtime.song_cases import (
    LABELS,
    LYRICS_ENCODED,
    LYRICS_IN_SEQUENCE,
    MODELS,
    RATE,
    UNLABELLED,
    VQVAE,
    upsampler,
)

SETTINGS = WindowSettings(batch=4, seed=5)
LENGTHS = (3000, 1777, 384)  # samples; a window of the top level has 384
NAMES = NameLists({"somebody": 3, "nobody": 4}, {"folk": 2, "hip": 5, "hop": 6})
VOCABULARY = Vocabulary({LabelRules.NAMES: NAMES, LabelRules.WORDS: NAMES})
ROWS = (
    {
        "file": "0.wav",
        "artist": "Somebody",
        "genres": ["Folk"],
        "lyrics": "Some words that are sung, one after another.",
    },
    {"file": "1.wav", "artist": "somebody else", "genres": ["polka"], "lyrics": "la"},
)


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> CodedSongs:
    """Three songs, two of them labelled. Not to be changed."""
    folder = tmp_path_factory.mktemp("songs")
    ramp_songs(folder, *LENGTHS)
    write_table(folder, ROWS)
    return encode_catalogue(read_catalogue(folder), cache_in(tmp_path_factory.mktemp("codes")), place_codes)


def windows_of(songs: CodedSongs, prior: PriorConfig, settings=SETTINGS, vocabulary=VOCABULARY, **share) -> CodeWindows:
    return CodeWindows(songs, prior, VQVAE, vocabulary, settings, **share)


def rows_of(batch: WindowBatch) -> list[dict[str, np.ndarray]]:
    return [{name: array[row] for name, array in batch.items()} for row in range(len(batch["codes"]))]


def assert_same(one: WindowBatch, other: WindowBatch) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("level", [0, 1])
def test_upper_codes_lie_exactly_over_the_window(songs, level):
    prior = upsampler(level)
    windows = windows_of(songs, prior)
    starts = set()
    for step in range(60):
        batch = windows.batch(step)
        assert batch["codes"].shape == (4, prior.window)
        assert batch["upper_codes"].shape == (4, prior.window // 2)
        for row in rows_of(batch):
            song, start = divmod(int(row["codes"][0]), SECOND_SONG)
            assert start % 2 == 0
            assert row["codes"].tolist() == [song * SECOND_SONG + start + i for i in range(prior.window)]
            assert row["upper_codes"].tolist() == [
                song * SECOND_SONG + start // 2 + i for i in range(prior.window // 2)
            ]
            starts.add((song, start))
    assert len(starts) > 50


def labels_of(prior: PriorConfig, song: int, start: int) -> dict[str, np.ndarray]:
    """What the sampler makes of a song's labels."""
    row = ROWS[song]
    text = SongText(str(row["artist"]), str(row["genres"][0]), str(row["lyrics"]))
    labels = label_song(prior, VOCABULARY, text, total_length=LENGTHS[song]).labels
    return window_labels(prior, RATE, VQVAE.hop_length(prior.level), labels, start).arrays()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_labels_are_those_of_the_sampler(songs, model, level):
    prior = MODELS[model].prior(level)
    labelled = replace(songs, songs=songs.songs[:2])
    windows = windows_of(labelled, prior)
    seen = set()
    for step in range(10):
        for row in rows_of(windows.batch(step)):
            song, start = divmod(int(row["codes"][0]), SECOND_SONG)
            expected = labels_of(prior, song, start)
            assert set(row) - {"codes", "upper_codes"} == set(expected)
            for name, array in expected.items():
                np.testing.assert_array_equal(row[name], array, err_msg=name)
            seen.add(song)
    assert seen == {0, 1}


def test_types_and_shapes_are_those_of_the_graphs(songs):
    batch = windows_of(songs, LYRICS_ENCODED).batch(0)
    shapes = {name: array.shape for name, array in batch.items()}
    assert shapes == {
        "codes": (4, 24),
        "artist": (4,),
        "genres": (4, 1),
        "total_bin": (4,),
        "absolute_bins": (4, 24),
        "relative_bins": (4, 24),
        "lyric_tokens": (4, 8),
    }
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}
    assert set(windows_of(songs, UNLABELLED).batch(0)) == {"codes"}


def test_a_batch_is_the_same_whenever_it_is_made(songs):
    windows = windows_of(songs, LYRICS_IN_SEQUENCE)
    batches = [windows.batch(step) for step in range(8)]
    again = windows_of(songs, LYRICS_IN_SEQUENCE)
    for step in (7, 0, 3):
        assert_same(again.batch(step), batches[step])
    other = windows_of(songs, LYRICS_IN_SEQUENCE, WindowSettings(4, 6))
    assert not np.array_equal(other.batch(0)["codes"], batches[0]["codes"])


@pytest.mark.parametrize("step", [0, 5])
def test_batches_of_all_processes_are_the_batch_of_one(songs, step):
    shares = [windows_of(songs, upsampler(0), WindowSettings(2, 5), rank=rank, workers=3) for rank in range(3)]
    batches = [share.batch(step) for share in shares]
    together = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert_same(together, windows_of(songs, upsampler(0), WindowSettings(6, 5)).batch(step))


def test_an_epoch_has_windows_of_every_song_by_its_length(songs):
    windows = windows_of(songs, LYRICS_ENCODED, WindowSettings(1, 5))
    assert windows.batches_per_epoch == 8 + 5 + 1  # 187, 111 and 24 codes in windows of 24
    starts = [int(windows.batch(step)["codes"][0, 0]) for step in range(14)]
    assert sum(start >= SECOND_SONG for start in starts) == 5


@pytest.mark.parametrize("count", [12, 100])
def test_held_out_windows_follow_one_another(songs, count):
    windows = windows_of(songs, LYRICS_ENCODED).evaluation_windows(count)
    first, second, third = songs.songs
    assert [song for song, _ in windows] == [*[first] * 7, *[second] * 4, third]
    expected = [24 * i for i in range(7)] + [SECOND_SONG + 24 * i for i in range(4)] + [0]
    assert [batch["codes"][:, 0].tolist() for _, batch in windows] == [[code] for code in expected]


def test_a_few_held_out_windows_are_spread_over_the_songs(songs):
    windows = windows_of(songs, LYRICS_ENCODED).evaluation_windows(3)
    assert [song for song, _ in windows] == [songs.songs[0], songs.songs[0], songs.songs[2]]
    assert [int(batch["codes"][0, 0]) for _, batch in windows] == [0, 24 * 6, 0]


def test_names_that_the_model_does_not_know_are_told_once(songs):
    windows = windows_of(songs, LYRICS_ENCODED)
    windows.batch(0)
    artist, genre = windows.warnings
    assert artist.startswith("1.wav: The model does not know the artist 'somebody else'")
    assert genre.startswith("1.wav: The model does not know the genre 'polka'")
    assert windows_of(songs, UNLABELLED).warnings == ()


@pytest.mark.parametrize(
    ("rules", "slots", "genres", "expected", "left_out"),
    [
        (LabelRules.NAMES, 1, ["folk", "hip"], [2], "hip"),
        (LabelRules.WORDS, 3, ["folk", "hip hop"], [2, 5, 6], ""),
        (LabelRules.WORDS, 3, ["hip hop"], [5, 6, -1], ""),
        (LabelRules.WORDS, 2, ["folk", "hip hop", "hop"], [2, -1], "hip hop, hop"),
        (LabelRules.WORDS, 2, ["#7", "#8"], [7, 8], ""),
        (LabelRules.WORDS, 1, [], [0], ""),
    ],
)
def test_as_many_genres_as_the_model_takes(rules, slots, genres, expected, left_out, tmp_path):
    ramp_songs(tmp_path, 400)
    write_table(tmp_path, [{"file": "0.wav", "genres": genres}])
    songs = encode_catalogue(read_catalogue(tmp_path), cache_in(tmp_path / "codes"), place_codes)
    prior = replace(UNLABELLED, labels=replace(LABELS, rules=rules, genre_slots=slots))
    windows = windows_of(songs, prior)
    assert windows.batch(0)["genres"][0].tolist() == expected
    assert [warning.rpartition("left out: ")[2] for warning in windows.warnings] == (
        [f"{left_out}."] if left_out else []
    )


def test_songs_that_the_prior_cannot_learn_from_are_listed(tmp_path):
    catalogue = ramp_songs(tmp_path, 383, 384, 4800, 4801, 500)
    write_table(tmp_path, [{"file": "4.wav", "artist": "#99"}])
    songs = encode_catalogue(read_catalogue(tmp_path), cache_in(tmp_path / "codes"), place_codes)
    assert len(songs.songs) == len(catalogue.songs)
    timing = TimingConfig(bins=8, min_duration=0.481, max_duration=6.001)
    prior = replace(LYRICS_ENCODED, labels=replace(LABELS, timing=timing))
    windows = windows_of(songs, prior)
    assert {s.name: s.reason for s in windows.skipped} == {
        "0.wav": "too short, 0.48 s for windows of 0.48 s",
        "1.wav": "0.48 s long, but the model supports songs of 0.48 s to 6.00 s",
        "3.wav": "6.00 s long, but the model supports songs of 0.48 s to 6.00 s",
        "4.wav": "There is no artist #99: the model has #0 to #15.",
    }
    assert [song.entry.name for song in windows.songs] == ["2.wav"]
    assert windows.batches_per_epoch == 4
    assert len(windows.evaluation_windows(100)) == 12


def test_it_is_an_error_if_no_song_is_left(tmp_path):
    ramp_songs(tmp_path, 100, 200)
    songs = encode_catalogue(read_catalogue(tmp_path), cache_in(tmp_path / "codes"), place_codes)
    with pytest.raises(DataError, match=r"None of 2 songs can be used to train prior 2. The first, 0.wav: too short"):
        windows_of(songs, LYRICS_ENCODED)


def test_settings_that_cannot_be(songs):
    with pytest.raises(ConfigError, match="batch: expected"):
        windows_of(songs, UNLABELLED, WindowSettings(0, 0))
