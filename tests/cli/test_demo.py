"""The demonstration: its material, its commands, and (slowly) the whole of it."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from rich.console import Console

from jukebox_deploy.cli.demo import Demo, demo, program
from jukebox_deploy.cli.demo_material import (
    PROMPT_RATE,
    UNTRAINED,
    UNTRAINED_ARTISTS,
    UNTRAINED_GENRES,
    write_chord,
    write_id_lists,
)
from jukebox_deploy.cli.main import COMMANDS, cli
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.labels.lyrics import LyricAlphabet
from jukebox_deploy.labels.vocabulary_files import read_vocabulary
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.audio import read_prompt
from jukebox_deploy.runtime.store import read_record


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
    assert names.artist(UNTRAINED.artist).ids == names.genres(UNTRAINED.genre).ids == (1,)
    assert LyricAlphabet.of(top.lyrics).clean(UNTRAINED.lyrics).text == UNTRAINED.lyrics


@pytest.mark.parametrize(("song", "number"), [("primed", 0), ("ancestral", 1)])
def test_a_shown_command_makes_the_song_of_the_demonstration(
    song: str, number: int, tiny_engine_bundle: EngineBundle, tmp_path: Path
) -> None:
    UNTRAINED.write(tmp_path)
    run = Demo(tmp_path, Console(file=io.StringIO()))
    job = run.songs()[number]
    options = map(str, run.song_options(song))
    arguments = ["sample", str(tiny_engine_bundle.folder), "--out", str(tmp_path / song), *options]
    result = CliRunner().invoke(cli, [*arguments, "--lowest-level", "2"])
    assert result.exit_code == 0, result.output
    assert job.folder == tmp_path / song
    assert read_record(job.folder).request == job.request


def test_only_a_demonstration_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    result = CliRunner().invoke(demo, ["--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "not from a demonstration" in result.output
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.slow
def test_all_of_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo, ["--out", str(out)])
    assert result.exit_code == 0, result.output
    for name in ("openai/vqvae.pth.tar", "onnx/manifest.json", "primed/song.json", "spectrogram.png"):
        assert (out / name).is_file()
    for name in ("primed", "ancestral"):
        audio, rate = soundfile.read(out / name / "level_0.wav")
        assert len(audio) / rate == pytest.approx(3.0, abs=0.01)
        assert 0.01 < np.sqrt(np.mean(audio**2)) < np.abs(audio).max() < 1.0
    assert "0 failed" in result.output
    assert "Random weights: expect noise" in result.output
    start = f"$ {program()} "
    shown = [shlex.split(line.removeprefix(start)) for line in result.output.splitlines() if line.startswith(start)]
    left_out = {"data", "train", "evaluate", "evaluate-songs", "export-weights", "presets"}
    assert {words[0] for words in shown} == set(COMMANDS) - left_out
