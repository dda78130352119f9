from __future__ import annotations

import json

from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from tests.data.song_folders import noise, write_sound, write_table


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "check", *map(str, arguments)])


def test_what_is_there_and_what_is_left_out(tmp_path):
    write_sound(tmp_path / "a.wav", noise(1.0))
    write_sound(tmp_path / "b.flac", noise(2.0, rate=16_000, channels=2), 16_000)
    (tmp_path / "broken.mp3").write_text("la la la")
    write_table(
        tmp_path,
        [{"file": "a.wav", "artist": "[red]Some/one", "genres": ["folk", "dance"], "lyrics": "la"}, {"file": "gone"}],
    )
    result = run(tmp_path, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    skipped = {entry["file"]: entry["reason"] for entry in document.pop("skipped")}
    assert document == {
        "folder": str(tmp_path),
        "songs": 2,
        "seconds": 3.0,
        "shortest_seconds": 1.0,
        "longest_seconds": 2.0,
        "with_lyrics": 1,
        "sample_rates": {"16000": 1, "8000": 1},
        "channels": {"1": 1, "2": 1},
        "artists": {"": 1, "[red]Some/one": 1},
        "genres": {"": 1, "dance": 1, "folk": 1},
    }
    assert "is not a sound file that can be read" in skipped["broken.mp3"]
    assert skipped["gone"] == "metadata.jsonl names it, but there is no such sound file"
    text = run(tmp_path).stdout
    for part in ("2 songs", "0.00 hours", "1.0 to 2.0 s", "8000 Hz (1)", "[red]Some/one", "folk", "broken.mp3", "gone"):
        assert part in text


def test_many_names_are_cut_on_the_terminal(tmp_path):
    for number in range(25):
        write_sound(tmp_path / f"{number}.wav", noise(0.1))
    write_table(tmp_path, [{"file": f"{number}.wav", "artist": f"artist {number:02}"} for number in range(25)])
    text = run(tmp_path).stdout
    assert "artist 19" in text
    assert "artist 20" not in text
    assert "and 5 more" in text
    assert len(json.loads(run(tmp_path, "--json").stdout)["artists"]) == 25


def test_nothing_to_train_on_is_exit_code_1(tmp_path):
    (tmp_path / "broken.wav").touch()
    for arguments in ((), ("--json",)):
        result = run(tmp_path, *arguments)
        assert result.exit_code == 1
        assert "broken.wav" in result.stdout
        assert "nothing here can be trained on" in result.stderr


def test_errors_are_one_sentence(tmp_path):
    write_sound(tmp_path / "song.wav", noise(0.1))
    table = tmp_path / "other.csv"
    for content, sentence in (
        ("file,artist\na", "line 2: expected 2 cells, found 1"),
        ("file\nx", "none of its 1 rows"),
    ):
        table.write_text(content)
        result = run(tmp_path, "--metadata", table)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1
