"""What is found in a folder of songs, what is left out of it and why, and how songs are divided."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from jukebox_deploy.data.catalogue import Catalogue, CatalogueFilters, SongEntry, read_catalogue, songs_digest
from jukebox_deploy.data.synthesis.corpus import CorpusRequest, synthesize_corpus
from jukebox_deploy.data.synthesis.song_files import CorpusIdentity
from jukebox_deploy.errors import ConfigError, DataError
from tests.data.song_folders import FORMATS, RATE, cut_off, noise, streamed, tone, write_sound, write_table


def names(catalogue: Catalogue) -> list[str]:
    return [song.name for song in catalogue.songs]


def reasons(catalogue: Catalogue) -> dict[str, str]:
    return {skipped.name: skipped.reason for skipped in catalogue.skipped}


def test_songs_of_all_formats_below_a_folder_are_found_by_name(tmp_path):
    for number, suffix in enumerate(FORMATS):
        write_sound(tmp_path / f"album {number}" / f"song.{suffix}", noise(1.0, channels=2))
    write_sound(tmp_path / "LOUD.WAV", noise(0.5, rate=16_000), 16_000)
    (tmp_path / "notes.txt").write_text("not a song")
    catalogue = read_catalogue(tmp_path)
    assert names(catalogue) == ["LOUD.WAV", *(f"album {n}/song.{suffix}" for n, suffix in enumerate(FORMATS))]
    assert catalogue.skipped == ()
    first, *others = catalogue.songs
    assert (first.sample_rate, first.samples, first.channels, first.seconds) == (16_000, 8_000, 1, 0.5)
    assert first.path == tmp_path / "LOUD.WAV"
    assert {(song.sample_rate, song.channels, song.artist, song.genres) for song in others} == {(RATE, 2, "", ())}
    assert {song.samples for song in others} == {RATE}
    assert catalogue.seconds == 4.5


def test_hidden_files_are_passed_by(tmp_path):
    for name in ("song.wav", ".partial-1-song.wav", ".trash/song.wav"):
        write_sound(tmp_path / name, noise(0.1))
    assert names(read_catalogue(tmp_path)) == ["song.wav"]


def test_the_synthesized_corpus_works_as_it_is(tmp_path):
    folder = tmp_path / "corpus"
    synthesize_corpus(CorpusRequest(folder, CorpusIdentity(rate=8000), songs=2, processes=1))
    catalogue = read_catalogue(folder)
    assert names(catalogue) == ["audio/0000.flac", "audio/0001.flac"]
    assert catalogue.skipped == ()
    assert all(song.artist and len(song.genres) == 1 and song.lyrics for song in catalogue.songs)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.touch(),
        lambda path: path.write_text("la la la"),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    ],
    ids=["no bytes", "text", "random bytes"],
)
def test_what_is_no_sound_is_skipped(suffix, make, tmp_path):
    write_sound(tmp_path / "good.wav", noise(0.5))
    make(tmp_path / f"bad.{suffix}")
    catalogue = read_catalogue(tmp_path)
    assert names(catalogue) == ["good.wav"]
    assert "is not a sound file that can be read" in reasons(catalogue)[f"bad.{suffix}"]
    assert str(tmp_path) not in reasons(catalogue)[f"bad.{suffix}"]


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("wav", "empty, it holds no samples"), ("flac", "is not a sound file"), ("ogg", "empty, it holds no samples")],
)
def test_sounds_without_samples_are_skipped(suffix, reason, tmp_path):
    write_sound(tmp_path / f"empty.{suffix}", np.zeros(0, np.float32))
    assert reason in reasons(read_catalogue(tmp_path))[f"empty.{suffix}"]


@pytest.mark.parametrize(("suffix", "reason"), [("flac", "decoding it fails"), ("mp3", "cut off, it ends before")])
def test_files_that_end_before_their_header_says_are_skipped(suffix, reason, tmp_path):
    cut_off(write_sound(tmp_path / f"song.{suffix}", noise(20.0, rate=44_100), 44_100))
    assert reason in reasons(read_catalogue(tmp_path))[f"song.{suffix}"]


def test_a_stream_of_unknown_length_is_skipped(tmp_path):
    streamed(write_sound(tmp_path / "song.flac", noise(1.0)))
    assert "does not say how long it is" in reasons(read_catalogue(tmp_path))["song.flac"]


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_files_whose_length_is_counted_are_as_long_as_what_is_left_of_them(suffix, tmp_path):
    path = cut_off(write_sound(tmp_path / f"song.{suffix}", noise(20.0, rate=44_100), 44_100))
    (song,) = read_catalogue(tmp_path).songs
    assert 5 < song.seconds < 19
    assert song.samples == len(soundfile.read(path)[0])


def test_lengths_outside_the_filters_are_skipped(tmp_path):
    for seconds in (1, 2, 3):
        write_sound(tmp_path / f"{seconds}.wav", noise(seconds))
    catalogue = read_catalogue(tmp_path, CatalogueFilters(min_seconds=2, max_seconds=2.5))
    assert names(catalogue) == ["2.wav"]
    assert reasons(catalogue) == {
        "1.wav": "too short, 1 s of at least 2 s",
        "3.wav": "too long, 3.00 s of at most 2.5 s",
    }


def test_silent_files_are_skipped_and_files_with_one_sound_are_not(tmp_path):
    silence = np.zeros(10 * RATE, np.float32)
    click = silence.copy()
    click[77_777] = 0.5  # where no probe falls
    write_sound(tmp_path / "silence.flac", silence)
    write_sound(tmp_path / "click.flac", click)
    write_sound(tmp_path / "whisper.wav", tone(1.0, peak=10 ** (-70 / 20)))
    catalogue = read_catalogue(tmp_path)
    assert names(catalogue) == ["click.flac"]
    assert reasons(catalogue) == {
        "silence.flac": "silent, no sample exceeds -200 dB",
        "whisper.wav": "silent, no sample exceeds -70 dB",
    }
    assert names(read_catalogue(tmp_path, CatalogueFilters(silence_decibel=-80))) == ["click.flac", "whisper.wav"]
    assert len(read_catalogue(tmp_path, CatalogueFilters(silence_decibel=None)).songs) == 3


@pytest.mark.parametrize("level", [0.5, 0.0])
@pytest.mark.parametrize("bad", [slice(100, None), slice(0, 1), slice(4321, 4322)], ids=str)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_samples_that_are_no_numbers_are_found(level, bad, value, tmp_path):
    samples = np.full(10 * RATE, level, np.float32)
    samples[bad] = value
    write_sound(tmp_path / "bad.wav", samples)
    assert "not finite" in reasons(read_catalogue(tmp_path))["bad.wav"]


@pytest.mark.parametrize("samples", [1, 100])
def test_what_nothing_can_be_learnt_from_is_too_short(samples, tmp_path):
    write_sound(tmp_path / "click.wav", np.full(samples, 0.5, np.float32))
    assert "too short, 0.0" in reasons(read_catalogue(tmp_path))["click.wav"]


def test_a_name_that_is_no_text_is_skipped(tmp_path):
    write_sound(tmp_path / "good.wav", noise(0.1))
    try:
        shutil.copy(bytes(tmp_path / "good.wav"), bytes(tmp_path) + b"/bad\xff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    catalogue = read_catalogue(tmp_path)
    assert names(catalogue) == ["good.wav"]
    (skipped,) = catalogue.skipped
    assert f"{skipped.name}{skipped.reason}".encode()
    assert "not UTF-8; rename it" in skipped.reason


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv", "somewhere/else.csv"])
def test_labels_come_from_the_table(table, tmp_path):
    folder = tmp_path / "songs"
    write_sound(folder / "a" / "1.wav", noise(0.1))
    write_sound(folder / "2.wav", noise(0.1))
    path = folder / table if "/" not in table else tmp_path / table
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".csv":
        path.write_text(
            'lyrics,file,artist,genres\n"la, la\nlo",./a/1.wav,The Night Ferry,folk; dance\n,gone.wav,x,y\n'
        )
    else:
        song = {"file": "./a/1.wav", "artist": "The Night Ferry", "genres": ["folk", "dance"], "lyrics": "la, la\nlo"}
        write_table(folder, [{**song, "tempo": 3}, {"file": "gone.wav", "genre": "y"}])
    catalogue = read_catalogue(folder, metadata=path if "/" in table else None)
    unlabelled, labelled = catalogue.songs
    assert (labelled.artist, labelled.genres, labelled.lyrics) == ("The Night Ferry", ("folk", "dance"), "la, la\nlo")
    assert (unlabelled.name, unlabelled.artist, unlabelled.genres, unlabelled.lyrics) == ("2.wav", "", (), "")
    assert reasons(catalogue) == {"gone.wav": f"{path.name} names it, but there is no such sound file"}


def test_a_row_of_a_skipped_file_is_listed_once(tmp_path):
    write_sound(tmp_path / "good.wav", noise(0.1))
    (tmp_path / "bad.wav").touch()
    write_table(tmp_path, [{"file": "bad.wav"}])
    assert list(reasons(read_catalogue(tmp_path))) == ["bad.wav"]


def test_accents_may_be_stored_in_either_way(tmp_path):
    write_sound(tmp_path / "e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}.wav", noise(0.1))
    write_table(tmp_path, [{"file": "été.wav", "artist": "someone"}])
    (song,) = read_catalogue(tmp_path).songs
    assert song.artist == "someone"


def test_folders_without_songs_are_an_error(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        read_catalogue(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("not a song")
    with pytest.raises(DataError, match="no sound files here"):
        read_catalogue(tmp_path)


def test_a_table_that_names_no_file_is_an_error(tmp_path):
    write_sound(tmp_path / "song.wav", noise(0.1))
    write_table(tmp_path, [{"file": "songs/song.wav"}, {"file": "b.wav"}])
    with pytest.raises(DataError, match=r"none of its 2 rows .*the first is b.wav, a file that is there song.wav"):
        read_catalogue(tmp_path)
    write_table(tmp_path, [])
    with pytest.raises(DataError, match="none of its 0 rows"):
        read_catalogue(tmp_path)


def test_two_tables_are_an_error(tmp_path):
    write_sound(tmp_path / "song.wav", noise(0.1))
    write_table(tmp_path, [{"file": "song.wav"}])
    (tmp_path / "metadata.csv").write_text("file\nsong.wav\n")
    with pytest.raises(DataError, match="holds both"):
        read_catalogue(tmp_path)
    assert len(read_catalogue(tmp_path, metadata=tmp_path / "metadata.csv").songs) == 1


@pytest.mark.parametrize(
    "options",
    [{"min_seconds": -1}, {"min_seconds": float("nan")}, {"max_seconds": 0}, {"min_seconds": 3, "max_seconds": 2}],
)
def test_filters_that_cannot_be(options):
    with pytest.raises(ConfigError, match="seconds: expected"):
        CatalogueFilters(**options)


def catalogue_of(names: list[str]) -> Catalogue:
    songs = [SongEntry(Path(name), name, "", (), "", RATE, RATE, 1) for name in names]
    return Catalogue(Path("folder"), tuple(songs))


NAMES = st.lists(st.text("abcdefgh", min_size=1), unique=True, min_size=2, max_size=30)


@settings(max_examples=40, deadline=None)
@given(NAMES, st.floats(0.01, 0.99))
def test_a_split_divides_the_songs_in_two(song_names, fraction):
    train, held_out = catalogue_of(song_names).split(fraction)
    assert train.songs
    assert held_out.songs
    assert sorted(names(train) + names(held_out)) == sorted(song_names)
    assert [name for name in song_names if name in names(train)] == names(train)


def test_songs_stay_on_their_side_when_others_are_added():
    many = [f"album/{number}.flac" for number in range(1000)]
    train, held_out = (set(names(side)) for side in catalogue_of(many).split())
    assert 870 <= len(train) <= 930
    for count in (100, 200, 500):
        fewer, fewer_held_out = catalogue_of(many[:count]).split()
        assert set(names(fewer)) <= train
        assert set(names(fewer_held_out)) <= held_out


def test_the_sides_of_these_names_are_fixed():
    """By SHA-256; a change would move songs of running trainings from one side to the other."""
    _, held_out = catalogue_of([f"{number}.flac" for number in range(30)]).split()
    assert names(held_out) == ["11.flac", "15.flac", "26.flac", "28.flac"]


def test_a_digest_changes_with_names_lengths_labels_and_order():
    """Runs that are resumed compare it, so it stays as it is for the same songs."""
    songs = catalogue_of(["a", "b"]).songs
    others = [
        replace(songs[0], **change) for change in ({"name": "c"}, {"samples": 7}, {"artist": "x"}, {"lyrics": "x"})
    ]
    digests = {songs_digest([other, songs[1]]) for other in others} | {songs_digest(songs), songs_digest(songs[::-1])}
    assert len(digests) == 6
    assert songs_digest(replace(song, path=Path("elsewhere")) for song in songs) == songs_digest(songs)


def test_nothing_is_held_out_on_request_and_of_a_single_song():
    train, held_out = catalogue_of(["a", "b", "c"]).split(1.0)
    assert (len(train.songs), len(held_out.songs)) == (3, 0)
    for number in range(30):  # by their hashes, four of these names would be held out
        train, held_out = catalogue_of([f"{number}.flac"]).split()
        assert (len(train.songs), len(held_out.songs)) == (1, 0)
    assert not any(side.songs for side in catalogue_of([]).split())


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, float("nan")])
def test_fractions_that_cannot_be(fraction):
    with pytest.raises(ConfigError, match="train fraction: expected"):
        catalogue_of(["a", "b"]).split(fraction)
