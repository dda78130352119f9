"""`evaluate-songs`: what it prints and how it exits."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from jukebox_deploy.data.catalogue import read_catalogue, songs_digest
from jukebox_deploy.data.synthesis.performance import perform
from tests.data.short_songs import RATE
from tests.jobs.sampled_songs import ARTISTS, GENRES, refrain, write_corpus, write_song


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), 8)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    for number in range(100, 104):
        sound = perform(refrain(number), RATE)[: 2 * RATE]
        labels = (ARTISTS[number % 2], GENRES[number // 2 % 2])
        write_song(folder / f"song_{number}", {0: sound, 2: sound}, *labels)
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["evaluate-songs", *map(str, arguments)])


def test_a_table_for_each_level(songs, corpus):
    result = run(songs, "--data", corpus, "--clips", 24)
    assert result.exit_code == 0, result.output
    for level in (0, 2):
        assert f"level {level}: 4 samples of 2.00 s, held against 24 clips of 8 songs" in result.stdout
    rows = [line.strip().split("  ")[0] for line in result.stdout.splitlines() if line.count("%") > 2]
    lines = ["artist recognised", "genre recognised", "energy on the genre's scale", "on those of other genres"]
    assert rows == [*lines, "the difference"] * 2
    assert "50.0%" in result.stdout  # chance


def test_json_is_one_document_and_the_file_has_the_same(songs, corpus, tmp_path):
    out, plot = tmp_path / "report.json", tmp_path / "plot.png"
    result = run(songs, "--data", corpus, "--level", 2, "--json", "--out", out, "--plot", plot, "--clips", 24)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [level["level"] for level in document["levels"]] == [2]
    assert document["songs"] == str(songs)
    assert {entry["kind"] for entry in document["levels"][0]["recognitions"]} == {"artist", "genre"}
    assert json.loads(out.read_text()) == document
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert list(document)[:3] == ["command", "date", "machine"]
    assert f"evaluate-songs {songs} --data {corpus} --level 2" in document["command"]
    assert document["machine"]["packages"]["numpy"]
    assert document["sampled_by"] == [{"checkpoint": "checkpoint", "engine": "engine"}]
    assert document["codec"] is None
    assert document["levels"][0]["corpus_digest"] == songs_digest(read_catalogue(corpus).songs)


def test_several_levels_get_a_picture_each(songs, corpus, tmp_path):
    result = run(songs, "--data", corpus, "--plot", tmp_path / "plot.png", "--clips", 24)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plot_level_0.png", "plot_level_2.png"]
    assert f"{tmp_path / 'plot_level_2.png'}: pictures" in result.stdout


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    result = run(tmp_path / "songs", "--data", tmp_path / "corpus", "--plot", tmp_path / "file" / "plot.png")
    assert result.exit_code == 2
    assert "is a file, not a folder" in " ".join(result.stderr.split())


def test_one_song_can_be_judged(songs, corpus):
    result = run(songs / "song_100", "--data", corpus, "--level", 0, "--clips", 24)
    assert result.exit_code == 0, result.output
    assert f"all 1 samples ask for the artist '{ARTISTS[0]}', so it cannot be tested" in result.stdout


def test_the_codec_is_recorded(tiny_checkpoint, corpus, tmp_path):
    sound = perform(refrain(100), 44_100)[:44_100]
    write_song(tmp_path / "song", {2: sound}, ARTISTS[0], GENRES[0], rate=44_100)
    result = run(tmp_path / "song", "--data", corpus, "--codec", tiny_checkpoint.folder, "--clips", 4, "--json")
    assert result.exit_code == 0, result.output
    codec = {"bundle": str(tiny_checkpoint.folder), "checkpoint": tiny_checkpoint.fingerprint()}
    assert json.loads(result.stdout)["codec"] == codec


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "no songs here, so there is nothing to judge"),
        (("--level", 1), "no song has a sound file level_1.wav; nothing to judge at level 1"),
    ],
)
def test_nothing_to_judge_is_exit_code_1_and_leaves_no_report(corpus, tmp_path, arguments, sentence):
    empty, out = tmp_path / "songs", tmp_path / "report.json"
    empty.mkdir()
    result = run(empty, "--data", corpus, "--out", out, *arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_a_codec_that_is_none_is_a_sentence(songs, corpus, tmp_path):
    result = run(songs, "--data", corpus, "--codec", tmp_path)
    assert result.exit_code == 1
    assert "no checkpoint bundle" in result.stderr
