"""`align`: songs that `sample` made get files with the times of their words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.jobs.alignment.files import ALIGNMENT_FILES

LYRICS = "Slow water\nover old stones"


@pytest.fixture(scope="module")
def songs(tiny_engine_bundle: EngineBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of songs, `song_0` with lyrics and `song_1` without."""
    folder = tmp_path_factory.mktemp("songs")
    requests = folder / "requests.jsonl"
    lines = [{"lyrics": LYRICS, "artist": "glass harbour"}, {"seed": 1}]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--requests", requests, "--seconds", 0.4, "--lowest-level", 2, "--out", folder]
    made = CliRunner().invoke(cli, ["sample", str(tiny_engine_bundle.folder), *map(str, options)])
    assert made.exit_code == 0, made.output
    return folder


def align(checkpoint: CheckpointBundle, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["align", *map(str, arguments), "--checkpoint", str(checkpoint.folder)])


def refusal(result: Result) -> str:
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr


@pytest.fixture
def model_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention that goes over the lyrics at an even pace, as no random weights pay it."""

    def lyric_alignment(prior, config, codes, windows, lyric_count, show):
        matrix = np.full((len(codes), lyric_count), 0.2 / lyric_count, np.float32)
        matrix[np.arange(len(codes)), np.arange(len(codes)) * lyric_count // len(codes)] += 0.8
        return matrix

    monkeypatch.setattr("jukebox_deploy.jobs.align_job.lyric_alignment", lyric_alignment)


def test_lines_are_shown_with_their_times(
    songs: Path, tiny_checkpoint: CheckpointBundle, model_that_follows: None, tmp_path: Path
) -> None:
    result = align(tiny_checkpoint, songs / "song_0", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{songs / 'song_0'}: 5 of 5 words are sung. 100% of the attention" in result.stdout
    rows = [
        line.split(maxsplit=3) for line in result.stdout.splitlines() if line.rstrip().endswith(("water", "stones"))
    ]
    assert [(*row[:2], row[3].strip()) for row in rows] == [
        ("0.00", "0.15", "Slow water"),
        ("0.17", "0.40", "over old stones"),
    ]
    for name in ALIGNMENT_FILES:
        assert str(tmp_path / "out" / name) in result.stdout
        assert (tmp_path / "out" / name).is_file()
    assert (tmp_path / "out" / "lyrics.lrc").read_text() == "[00:00.00]Slow water\n[00:00.17]over old stones\n"


def test_json_is_one_document_and_random_weights_follow_no_lyrics(
    songs: Path, tiny_checkpoint: CheckpointBundle
) -> None:
    result = align(tiny_checkpoint, songs / "song_0", songs / "song_0", "--json", "--threads", 1)
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)["songs"]
    assert first == second
    assert first["files"] == [str(songs / "song_0" / name) for name in ALIGNMENT_FILES]
    assert [word["text"] for word in first["words"]] == LYRICS.split()
    assert "windows: 1 of 1" in result.stderr
    with np.load(songs / "song_0" / "alignment.npz") as arrays:
        assert arrays["attention"].shape == (137, len(LYRICS))
        assert 0 < arrays["attention"].sum(axis=1).max() <= 1.00001
    told = align(tiny_checkpoint, songs / "song_0").stdout
    assert "of 5 words are sung" in told


def test_a_song_without_lyrics(songs: Path, tiny_checkpoint: CheckpointBundle) -> None:
    assert "song_1: the song has no lyrics" in refusal(align(tiny_checkpoint, songs / "song_1"))


def test_a_song_of_another_checkpoint(songs: Path, tmp_path: Path) -> None:
    other = write_random_bundle("tiny", tmp_path / "other", seed=77)
    told = refusal(align(other, songs / "song_0"))
    assert f"{songs / 'song_0'} is a song of another model: made with tiny" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument 'SONG...'"),
        (("nowhere",), "nowhere: there is no such song folder"),
        (("song", "--out", ""), "an empty name"),
        (("song", "--precision", "fp12"), "'fp12' is not one of"),
        (("a", "b", "--out", "c"), "c: a folder for the files of one song, and 2 are given"),
    ],
)
def test_what_cannot_be_asked_for(tiny_checkpoint: CheckpointBundle, arguments: tuple[str, ...], told: str) -> None:
    assert told in refusal(align(tiny_checkpoint, *arguments))
