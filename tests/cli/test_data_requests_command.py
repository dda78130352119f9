from __future__ import annotations

from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from jukebox_deploy.jobs.requests.songs import read_jobs
from tests.data.song_folders import noise, write_sound, write_table


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "requests", *map(str, arguments)])


def songs(folder):
    for name, seconds in (("a.wav", 2.0), ("b.wav", 4.0)):
        write_sound(folder / name, noise(seconds))
    write_table(folder, [{"file": "a.wav", "artist": "them", "genres": ["folk", "dance"], "lyrics": "ah"}])
    return folder


def test_requests_are_songs_that_sample_can_make(tmp_path):
    folder, out = songs(tmp_path), tmp_path / "requests.jsonl"
    result = run(folder, "--seconds", 1, "--place", 0.5, "--out", out)
    assert result.exit_code == 0, result.output
    first, second = (job.request for job in read_jobs(out, {"seed": 3}, tmp_path / "songs"))
    assert (first.artist, first.genre, first.lyrics) == ("them", "folk", "ah")
    assert (first.seconds, first.total_seconds, first.offset_seconds) == (1.0, 2.0, 0.5)
    assert (second.artist, second.total_seconds, second.offset_seconds) == ("", 4.0, 1.5)
    assert (first.song, second.song, second.seed) == (0, 1, 3)


def test_a_place_is_a_number(tmp_path):
    result = run(tmp_path, "--seconds", 1, "--place", "nan", "--out", tmp_path / "requests.jsonl")
    assert result.exit_code == 2
    assert "nan is no usual number" in result.output


def test_more_than_a_song_has(tmp_path):
    folder, out = songs(tmp_path), tmp_path / "requests.jsonl"
    result = run(folder, "--seconds", 3, "--out", out)
    assert result.exit_code != 0
    assert "a.wav: lasts 2.00 s, and 3 s of it are to be asked for" in result.output
    assert not out.exists()
