from __future__ import annotations

import json
import sys

import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.data_synthesize_command import CorpusProgress
from jukebox_deploy.cli.main import cli
from jukebox_deploy.cli.progress import Pace
from jukebox_deploy.data.synthesis.corpus import SongDone
from jukebox_deploy.data.synthesis.song_files import SongFiles


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "synthesize", *map(str, arguments)])


def test_a_corpus_and_what_is_said_of_it(tmp_path):
    out = tmp_path / "songs"
    arguments = ("--hours", 0.01, "--out", out, "--rate", 8000, "--processes", 1)
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["corpus"] == str(out)
    assert document["songs"] == document["made"] == len(list((out / "audio").iterdir())) == 1
    assert document["seconds"] >= 36
    again = run(*arguments)
    assert "songs: 1," in again.stdout
    assert "made now: 0," in again.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give hours, or a number of songs"),
        (("--hours", 0), "hours: expected a number above 0, found 0."),
        (("--hours", -2), "hours: expected a number above 0, found -2."),
        (("--songs", 0), "songs: expected"),
        (("--songs", 1, "--rate", 1), "rate: expected"),
        (("--songs", 1, "--seed", -1), "seed: expected"),
        (("--songs", 1, "--processes", 0), "processes: expected"),
    ],
)
def test_a_bad_request_is_one_sentence(tmp_path, arguments, sentence):
    result = run(*arguments, "--out", tmp_path / "songs")
    assert result.exit_code == 2
    (told,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert sentence in told
    assert not (tmp_path / "songs").exists()


def test_without_scipy_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    result = run("--songs", 1, "--out", tmp_path / "songs")
    assert result.exit_code == 1
    assert "this needs the package scipy, which is not installed" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    result = run("--songs", 1, "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "is a file, and a corpus is a folder" in result.stderr


def test_the_speed_counts_what_this_run_made():
    song, progress, pace = SongFiles(0, {"seconds": 50.0}, ""), CorpusProgress(), Pace(begun=0.0, first=0.0)
    there = progress.after(SongDone(song, made=False, total_seconds=150.0))
    assert (there.note, pace.describe(there, 1.0)) == ("song 1", ())
    made = progress.after(SongDone(song, made=True, total_seconds=150.0))
    assert (made.note, made.counted) == ("song 2", "100 of 150 s of music")
    assert pace.describe(made, 2.0) == ("25 x real time", "0:00:02 left")
