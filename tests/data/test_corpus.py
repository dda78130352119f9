"""Corpora on disk: the same bytes however they are made, going on after an interruption, and bad requests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jukebox_deploy.config import LabelRules
from jukebox_deploy.data.synthesis import corpus as corpus_module
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.composition import compose
from jukebox_deploy.data.synthesis.corpus import CorpusRequest, SongDone, synthesize_corpus
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.scales import frequency
from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.data.synthesis.song_files import CorpusIdentity, SoundFormat
from jukebox_deploy.errors import ConfigError, JukeboxError
from jukebox_deploy.files import sha256_of_file
from jukebox_deploy.labels.vocabulary_files import read_vocabulary

IDENTITY = CorpusIdentity(seed=7, rate=8000)


def request_for(folder, songs=2, **others):
    return CorpusRequest(folder, **{"identity": IDENTITY, "songs": songs, "processes": 1, **others})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three songs. Not to be changed."""
    folder = tmp_path_factory.mktemp("corpus") / "songs"
    synthesize_corpus(request_for(folder, songs=3))
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder):
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_the_table_names_files_and_says_what_is_in_them(corpus):
    for number, row in enumerate(rows(corpus)):
        song = compose(7, number)
        info = soundfile.info(corpus / row["file"])
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("FLAC", "PCM_16", 1, 8000)
        assert row["seconds"] == info.frames / 8000 == pytest.approx(song.seconds, abs=1e-3)
        assert (row["artist"], row["genres"], row["lyrics"]) == (song.artist, [song.genre], song.lyrics)
        score = json.loads((corpus / row["score"]).read_text())
        assert len(score["syllables"]) == sum(len(section.syllables) for section in song.sections)
        assert score["song"] == row


def test_notes_sound_when_the_score_says(corpus):
    """While a note of the lead lasts there is more at its frequency than a semitone to either side."""
    right = []
    for row in rows(corpus):
        samples, rate = soundfile.read(corpus / row["file"])
        notes = json.loads((corpus / row["score"]).read_text())["notes"]
        for note in [n for n in notes if n["part"] == "lead" and n["seconds"] > 0.3]:
            begin, length = round(note["start"] * rate), round(note["seconds"] * rate)
            piece = samples[begin : begin + length] * np.hanning(length)
            hertz = frequency(note["pitch"]) * 2 ** (np.array([-1, 0, 1]) / 12)
            waves = np.exp(-2j * np.pi * hertz[:, None] * np.arange(length) / rate)
            right.append(np.abs((piece * waves).sum(axis=1)).argmax() == 1)
    assert len(right) > 20
    assert np.mean(right) > 0.9


def test_corpus_json_describes_the_folder(corpus):
    document = json.loads((corpus / "corpus.json").read_text())
    assert document["complete"]
    assert document["identity"] == {
        "seed": 7,
        "rate": 8000,
        "sound_format": "flac",
        "grid": 0.0,
        "arrangement": "full",
        "generator": 3,
    }
    assert document["songs"] == 3
    assert document["seconds"] == pytest.approx(sum(row["seconds"] for row in rows(corpus)))
    assert document["artists"] == Counter(row["artist"] for row in rows(corpus))
    assert document["sha256"] == {
        name: sha256_of_file(corpus / name) for name in contents(corpus) if name != "corpus.json"
    }


def test_the_lists_of_names_can_be_imported(corpus):
    vocabulary = read_vocabulary(corpus)
    for names in vocabulary.lists.values():
        assert sorted(names.artists.values()) == list(range(len(ARTISTS) + 1))
        assert sorted(names.genres.values()) == list(range(len(GENRES) + 1))
        assert names.artists["unknown"] == 0
    assert {row["artist"] for row in rows(corpus)} <= set(vocabulary.lists[LabelRules.NAMES].artists)


def test_other_processes_make_the_same_bytes(corpus, tmp_path):
    synthesize_corpus(request_for(tmp_path / "again", songs=3, processes=2))
    assert contents(tmp_path / "again") == contents(corpus)


def test_a_corpus_grows_to_what_one_run_would_have_made(corpus, tmp_path):
    """Also when the first run was killed, or a file got lost or was cut."""
    folder = tmp_path / "songs"
    assert synthesize_corpus(request_for(folder)).made == 2
    (folder / "audio" / "0001.flac").unlink()
    (folder / "audio" / ".partial-00-0001.flac").write_bytes(b"half")
    (folder / "scores" / "0000.json").write_text("{")
    events: list[SongDone] = []
    summary = synthesize_corpus(request_for(folder, songs=3), events.append)
    assert summary.made == 3
    assert [event.song.number for event in events] == [0, 1, 2]
    assert contents(folder) == contents(corpus)


def test_finished_songs_are_not_made_again(corpus, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in corpus.glob("*/*")}
    events: list[SongDone] = []
    summary = synthesize_corpus(request_for(corpus, songs=3), events.append)
    assert summary.made == 0
    assert not any(event.made for event in events)
    assert {path: path.stat().st_mtime_ns for path in corpus.glob("*/*")} == before


def test_an_interrupted_run_leaves_whole_songs(corpus, tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    folder = tmp_path / "songs"
    with pytest.raises(KeyboardInterrupt):
        synthesize_corpus(request_for(folder), interrupt)
    assert not json.loads((folder / "corpus.json").read_text())["complete"]
    assert not (folder / "metadata.jsonl").exists()
    assert synthesize_corpus(request_for(folder, songs=3)).made == 2
    assert contents(folder) == contents(corpus)


def test_hours_are_reached_and_no_song_too_many():
    lengths = request_for(Path("nowhere"), songs=None, hours=0.05).song_lengths()
    assert sum(lengths[:-1]) < 180 <= sum(lengths)
    assert lengths[0] == outline(7, 0).seconds
    assert len(request_for(Path("nowhere"), songs=1, hours=0.05).song_lengths()) == 1


def test_wav_holds_the_same_samples(corpus, tmp_path):
    identity = CorpusIdentity(seed=7, rate=8000, sound_format=SoundFormat.WAV)
    synthesize_corpus(request_for(tmp_path / "wav", songs=1, identity=identity))
    wav, _ = soundfile.read(tmp_path / "wav" / "audio" / "0000.wav", dtype="int16")
    flac, _ = soundfile.read(corpus / "audio" / "0000.flac", dtype="int16")
    np.testing.assert_array_equal(wav, flac)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"songs": None}, "give hours, or a number of songs"),
        ({"songs": 0}, "songs: expected 1 or more, found 0"),
        ({"hours": 0}, "hours: expected a number above 0, found 0"),
        ({"hours": float("nan")}, "hours: expected a number above 0, found nan"),
        ({"hours": float("inf")}, "found inf"),
        ({"processes": 0}, "processes: expected"),
    ],
)
def test_limits_that_cannot_be(tmp_path, wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        request_for(tmp_path, **wrong)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"seed": -1}, "seed: expected"),
        ({"seed": 2**64}, "seed: expected"),
        ({"rate": 4000}, "rate: expected 8000 to 192000"),
        ({"rate": 10**6}, "rate: expected 8000 to 192000"),
        ({"grid": -0.1}, "grid: expected 0 to 0.2 seconds, found -0.1"),
        ({"grid": float("nan")}, "grid: expected"),
    ],
)
def test_identities_that_cannot_be(wrong, sentence):
    with pytest.raises(ConfigError, match=sentence):
        CorpusIdentity(**wrong)


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        (CorpusIdentity(8, 8000), "seed 7"),
        (CorpusIdentity(7, 9000), "rate 8000"),
        (CorpusIdentity(7, 8000, grid=0.032), "grid 0.0"),
        (CorpusIdentity(7, 8000, arrangement=Arrangement.SOLO), "arrangement full"),
    ],
    ids=["seed", "rate", "grid", "arrangement"],
)
def test_a_corpus_of_another_identity_is_left_alone(corpus, identity, found):
    before = contents(corpus)
    with pytest.raises(JukeboxError, match=found):
        synthesize_corpus(request_for(corpus, identity=identity))
    assert contents(corpus) == before


def test_folders_with_other_things_are_left_alone(tmp_path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(JukeboxError, match="has other things in it"):
        synthesize_corpus(request_for(tmp_path))
    with pytest.raises(JukeboxError, match="is a file"):
        synthesize_corpus(request_for(tmp_path / "diary.txt"))
    (tmp_path / corpus_module.CORPUS_NAME).write_text("[]")
    with pytest.raises(JukeboxError, match="not the description of a corpus"):
        synthesize_corpus(request_for(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"diary.txt", "corpus.json"}
