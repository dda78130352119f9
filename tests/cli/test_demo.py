"""The demonstration: its material, its commands, and (slowly) the whole of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from jukebox_deploy.cli import demo as demo_module
from jukebox_deploy.cli import sample_command
from jukebox_deploy.cli.demo import demo
from jukebox_deploy.cli.demo_chord import PROMPT_RATE, write_chord
from jukebox_deploy.cli.demo_material import (
    UNTRAINED,
    UNTRAINED_ARTISTS,
    UNTRAINED_GENRES,
    DemoSong,
    Material,
    trained_material,
    write_id_lists,
)
from jukebox_deploy.cli.demo_telling import program
from jukebox_deploy.cli.main import COMMANDS, cli
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.jobs.sample_job import OpenedModel
from jukebox_deploy.jobs.sampling_advice import SAMPLING_FILE
from jukebox_deploy.jobs.shipped_model import PROMPT_FILE, shipped_model
from jukebox_deploy.labels.lyrics import LyricAlphabet
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.labels.vocabulary_files import read_vocabulary
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.audio import read_prompt
from jukebox_deploy.runtime.sampler import SongJob
from tests.runtime.fake_engine import FakeEngine
from tests.runtime.song_cases import FINGERPRINT, MODEL


def test_the_prompt_is_pleasant_stereo_of_another_rate(tmp_path: Path) -> None:
    write_chord(tmp_path / "prompt.flac")
    audio, rate = soundfile.read(tmp_path / "prompt.flac")
    assert rate == PROMPT_RATE
    assert audio.shape == (round(1.6 * rate), 2)
    assert 0.1 < np.sqrt(np.mean(audio**2)) < np.abs(audio).max() < 0.71
    left, right = audio.T
    assert np.abs(left - right).max() > 0.1
    prompt = read_prompt(tmp_path / "prompt.flac", 44_100, 128)
    assert len(prompt) == round(1.6 * 44_100) // 128 * 128


def test_the_names_and_lyrics_are_known_to_tiny(tmp_path: Path) -> None:
    write_id_lists(tmp_path, UNTRAINED_ARTISTS, UNTRAINED_GENRES)
    top = preset("tiny").prior(2)
    assert top.labels
    assert top.lyrics
    names = read_vocabulary(tmp_path).for_model(top.labels)
    for song in UNTRAINED.songs:
        assert names.artist(song.artist).ids == names.genres(song.genre).ids == (1,)
        assert LyricAlphabet.of(top.lyrics).clean(song.lyrics).text == song.lyrics


def write_advice(folder: Path) -> Path:
    levels = [{"temperature": 0.9}, {"temperature": 0.99, "top_p": 0.95}, {"temperature": 1.0, "top_k": 40}]
    (folder / SAMPLING_FILE).write_text(json.dumps({"levels": levels, "total_seconds": 50.0}))
    return folder


def test_the_songs_of_a_trained_model_are_of_several_artists_and_genres_of_the_corpus(tmp_path: Path) -> None:
    songs = trained_material(tmp_path, 3).songs
    assert len({song.artist for song in songs}) == len({song.genre for song in songs}) == len(songs) >= 3
    assert {song.artist for song in songs} <= set(ARTISTS)
    assert {song.genre for song in songs} <= set(GENRES)
    assert sum(bool(song.lyrics) for song in songs) == sum(song.primed for song in songs) == 1


def test_a_model_brings_its_prompt_and_its_settings(tmp_path: Path) -> None:
    write_chord(tmp_path / PROMPT_FILE)
    material = trained_material(write_advice(tmp_path), 3)
    assert material.total_seconds == 50.0
    assert [level.temperature for level in material.levels] == [0.9, 0.99, 1.0]
    (tmp_path / "out").mkdir()
    material.write(tmp_path / "out")
    assert (tmp_path / "out" / PROMPT_FILE).read_bytes() == (tmp_path / PROMPT_FILE).read_bytes()


def jobs_of_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[SongJob]:
    """What `sample` would make."""
    caught: list[SongJob] = []
    model = OpenedModel(FakeEngine(MODEL), FINGERPRINT, Vocabulary())
    monkeypatch.setattr(sample_command, "open_model", lambda *rest: model)
    monkeypatch.setattr(sample_command, "_show", lambda events, summary, progress: caught.extend(summary.jobs))
    result = CliRunner().invoke(cli, ["sample", "bundle", *arguments])
    assert result.exit_code == 0, result.output
    return caught


@pytest.mark.parametrize("trained", [False, True])
def test_the_shown_commands_make_the_songs_of_the_demonstration(
    trained: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material: Material = trained_material(write_advice(tmp_path), 3) if trained else UNTRAINED
    material.write(tmp_path)
    for song, job in zip(material.songs, material.jobs(tmp_path), strict=True):
        options = map(str, material.options(song, tmp_path))
        assert jobs_of_command(["--out", str(tmp_path / song.name), *options], monkeypatch) == [job]


def test_without_the_shipped_model_the_demonstration_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(demo_module, "_open", lambda out, teller, folder: seen.append(folder))
    monkeypatch.setattr(demo_module, "shipped_model", lambda: None)
    assert "no trained model here" in CliRunner().invoke(demo, ["--out", str(tmp_path)]).output
    monkeypatch.setattr(demo_module, "shipped_model", lambda: tmp_path / "model")
    assert "no trained model" not in CliRunner().invoke(demo, ["--out", str(tmp_path)]).output
    CliRunner().invoke(demo, ["--out", str(tmp_path), "--untrained"])
    CliRunner().invoke(demo, ["--out", str(tmp_path), "--bundle", "other"])
    assert seen == [None, tmp_path / "model", None, Path("other")]


def test_a_trained_and_an_untrained_model_exclude_each_other(tmp_path: Path) -> None:
    result = CliRunner().invoke(demo, ["--out", str(tmp_path / "out"), "--bundle", "b", "--untrained"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


def test_only_a_demonstration_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = CliRunner().invoke(demo, ["--out", str(tmp_path), "--untrained"])
    assert result.exit_code == 1
    assert "not from a demonstration" in result.output
    assert (tmp_path / "thesis.tex").exists()


def test_a_bundle_that_is_none_leaves_the_old_demonstration(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    out.mkdir()
    (out / ".jukebox-demo").touch()
    (out / "song.wav").touch()
    result = CliRunner().invoke(demo, ["--out", str(out), "--bundle", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert "give the folder of a checkpoint bundle" in result.output
    assert (out / "song.wav").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "songs", "seconds"),
    [
        (["--untrained"], UNTRAINED.songs, 3.0),
        pytest.param(
            [],
            trained_material(Path("nowhere"), 3).songs,
            6.0,
            marks=pytest.mark.skipif(shipped_model() is None, reason="there is no model in models/small_demo"),
        ),
    ],
    ids=["untrained", "shipped"],
)
def test_all_of_it(options: list[str], songs: tuple[DemoSong, ...], seconds: float, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo, ["--out", str(out), *options])
    assert result.exit_code == 0, result.output
    for name in ("openai/vqvae.pth.tar", "onnx/manifest.json", "primed/song.json", "spectrogram.png"):
        assert (out / name).is_file()
    for song in songs:
        audio, rate = soundfile.read(out / song.name / "level_0.wav")
        assert len(audio) / rate == pytest.approx(seconds, abs=0.032)  # whole top codes
        assert 0.001 < np.sqrt(np.mean(audio**2)) < np.abs(audio).max() < 2.0
        assert str(out / song.name / "level_0.wav") in result.output
    assert "0 failed" in result.output
    assert ("Random weights: expect noise" in result.output) is bool(options)
    start = f"$ {program()} "
    shown = [shlex.split(line.removeprefix(start)) for line in result.output.splitlines() if line.startswith(start)]
    left_out = {"align", "data", "train", "evaluate", "evaluate-songs", "export-weights", "presets"}
    assert {words[0] for words in shown} == set(COMMANDS) - left_out
