from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.cli.main import cli
from jukebox_deploy.jobs import train_job
from jukebox_deploy.jobs.training.request import TrainingEvent, TrainingListener
from jukebox_deploy.training.precision import TrainingPrecision
from jukebox_deploy.training.settings import RECIPES, Part, Sharding


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tones without labels."""
    folder = tmp_path_factory.mktemp("songs")
    time_axis = np.arange(44_100) / 44_100
    for number in (1, 2):
        soundfile.write(folder / f"{number}.wav", 0.3 * np.sin(2 * np.pi * 200 * number * time_axis), 44_100)
    return folder


def vqvae_arguments(songs: Path, out: Path, *more: str) -> list[str]:
    """A short run of `tiny`."""
    base = ["--data", str(songs), "--out", str(out), "--preset", "tiny", "--batch", "2", "--seconds", "0.06"]
    return ["train", "vqvae", *base, *more]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The requests that reach the job, which does nothing with them."""
    requests: list[object] = []

    def train(request: object, listen: object) -> object:
        requests.append(request)
        return train_job.TrainingSummary(Path("run"), None, 0, 0.0, 0.0, {})

    monkeypatch.setattr(train_job, "train", train)
    return requests


def test_every_option_reaches_the_settings(seen: list[object]) -> None:
    options = {
        "--batch": "8", "--accumulate": "2", "--learning-rate": "0.002", "--weight-decay": "0.1", "--beta2": "0.9",
        "--clip": "2", "--warm-up": "7", "--anneal": "5", "--average": "0.5", "--seed": "3", "--precision": "bf16",
        "--sharding": "sharded", "--freeze": "labels,core.output", "--train-fraction": "0.8", "--level": "1",
        "--checkpoint-minutes": "2", "--keep": "3", "--log-steps": "4", "--report-steps": "6", "--codes": "codes",
        "--vocabulary": "ids", "--metadata": "table.csv", "--preset": "tiny",
    }  # fmt: skip
    words = ["train", "upsampler", "--data", "songs", "--out", "run", "--bundle", "b", "--steps", "9"]
    flags = ["--recompute", "--resume", "--fine-tune", "--tensorboard"]
    result = CliRunner().invoke(cli, [*words, *(word for pair in options.items() for word in pair), *flags])
    assert result.exit_code == 0, result.output
    (request,) = seen
    settings, optimiser = request.settings, request.settings.optimiser  # type: ignore[attr-defined]  # a TrainRequest
    assert (settings.part, settings.level, settings.steps, settings.batch) == (Part.UPSAMPLER, 1, 9, 8)
    assert (settings.accumulate, settings.seed, settings.recompute) == (2, 3, True)
    assert (settings.precision, settings.sharding) == (TrainingPrecision.BF16, Sharding.SHARDED)
    assert (settings.average_decay, settings.frozen, settings.train_fraction) == (0.5, ("labels", "core.output"), 0.8)
    assert (optimiser.learning_rate, optimiser.weight_decay, optimiser.beta2) == (0.002, 0.1, 0.9)
    assert (optimiser.clip, optimiser.warm_up, optimiser.anneal) == (2, 7, 5)
    cadence = request.cadence  # type: ignore[attr-defined]
    assert (cadence.checkpoint_minutes, cadence.keep, cadence.log_steps, cadence.report_steps) == (2, 3, 4, 6)
    assert cadence.tensorboard
    places = ("codes", "vocabulary", "metadata", "bundle")
    assert [str(getattr(request, name)) for name in places] == ["codes", "ids", "table.csv", "b"]
    assert (request.resume, request.fine_tune, request.preset) == (True, True, "tiny")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("capability", "precision", "warned"), [("AVX2", "bf16", True), ("AVX512", "bf16", False), ("AVX2", "fp32", False)]
)
def test_a_precision_that_the_processor_lacks_is_told(
    seen: list[object], monkeypatch: pytest.MonkeyPatch, capability: str, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    command = ["train", "vqvae", "--data", "songs", "--out", "run", "--preset", "tiny", "--steps", "1"]
    result = CliRunner().invoke(cli, [*command, "--precision", precision])
    assert result.exit_code == 0, result.output
    assert ("no instructions for it" in result.stderr) == warned
    assert len(seen) == 1


@pytest.mark.parametrize("part", list(Part))
def test_without_options_the_recipe_is_the_papers(seen: list[object], part: Part) -> None:
    words = ["train", str(part), "--data", "songs", "--out", "run", "--steps", "9"]
    more = {Part.VQVAE: [], Part.PRIOR: ["--bundle", "b"], Part.UPSAMPLER: ["--bundle", "b", "--level", "0"]}[part]
    result = CliRunner().invoke(cli, [*words, *more])
    assert result.exit_code == 0, result.output
    assert seen[0].settings.optimiser == RECIPES[part]  # type: ignore[attr-defined]  # a TrainRequest


def test_waveforms_count_by_level_and_passes_are_compiled(seen: list[object]) -> None:
    words = ["train", "vqvae", "--data", "songs", "--out", "run", "--steps", "9", "--preset", "tiny"]
    result = CliRunner().invoke(cli, [*words, "--waveform-weight", "2=0.1", "--compile"])
    assert result.exit_code == 0, result.output
    assert seen[0].settings.compiled  # type: ignore[attr-defined]  # a TrainRequest
    assert seen[0].settings.loss.waveform == (1.0, 1.0, 0.1)  # type: ignore[attr-defined]  # a TrainRequest
    refused = CliRunner().invoke(cli, [*words, "--waveform-weight", "0.1"])
    assert refused.exit_code == 2
    assert "given by level, such as 2=0.1" in refused.output


def test_levels_that_are_trained(seen: list[object]) -> None:
    words = ["train", "vqvae", "--data", "songs", "--out", "run", "--steps", "9", "--bundle", "b"]
    result = CliRunner().invoke(cli, [*words, "--levels", "0,2", "--anew"])
    assert result.exit_code == 0, result.output
    assert seen[0].settings.levels == (0, 2)  # type: ignore[attr-defined]  # a TrainRequest
    assert seen[0].settings.anew  # type: ignore[attr-defined]  # a TrainRequest
    refused = CliRunner().invoke(cli, [*words, "--levels", "top"])
    assert refused.exit_code == 2
    assert "'top': give numbers from 0 on" in refused.output


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (("--steps", "0"), "steps: expected 1 or more, found 0."),
        (("--anneal", "10"), "anneal: expected at most the 9 steps of the run, found 10."),
        (("--learning-rate", "nan"), "learning rate: expected a finite number above 0, found nan."),
        (("--keep", "0"), "checkpoints to keep"),
        (("--waveform-weight", "1=-1"), "Invalid value for '--waveform-weight': -1.0 is not in the range x>=0."),
    ],
)
def test_a_value_that_no_run_can_have_is_a_usage_error(seen: list[object], option: tuple[str, str], told: str) -> None:
    words = ["train", "vqvae", "--data", "songs", "--out", "run", "--steps", "9", "--preset", "tiny"]
    result = CliRunner().invoke(cli, [*words, *option])
    assert result.exit_code == 2
    assert told in result.output
    assert seen == []


@pytest.mark.parametrize("threads", ["0", "-1"])
def test_a_number_of_threads_below_one_is_refused(seen: list[object], threads: str) -> None:
    words = ["train", "vqvae", "--data", "songs", "--out", "run", "--steps", "9", "--preset", "tiny"]
    result = CliRunner().invoke(cli, [*words, "--threads", threads])
    assert result.exit_code == 2
    assert "Invalid value for '--threads'" in result.output
    assert seen == []


def test_a_run_says_what_came_of_it(songs: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, vqvae_arguments(songs, tmp_path / "run", "--steps", "1", "--json"))
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["steps"] == 1
    assert "snr_decibel_0" in summary["held_out"]
    assert "Warning" not in result.stderr
    again = CliRunner().invoke(cli, vqvae_arguments(songs, tmp_path / "run", "--steps", "1"))
    assert again.exit_code == 1
    assert "continue it with --resume" in again.output


def test_a_warning_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(request: object, listen: TrainingListener) -> object:
        listen(TrainingEvent("warning", 0, 1, warning="no song is held out"))
        return train_job.TrainingSummary(Path("run"), None, 0, 0.0, 0.0, {})

    monkeypatch.setattr(train_job, "train", train)
    result = CliRunner().invoke(cli, ["train", "vqvae", "--data", "songs", "--out", "run", "--steps", "1"])
    assert result.exit_code == 0, result.output
    assert "Warning: no song is held out" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_goes_on_to_the_same_weights(songs: Path, tmp_path: Path, by: signal.Signals) -> None:
    steps = ("--steps", "60", "--checkpoint-minutes", "0.001", "--log-steps", "1", "--threads", "1")
    program = [sys.executable, "-m", "jukebox_deploy.cli.main"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*program, *vqvae_arguments(songs, whole, *steps)], check=True, env=environment)
    process = subprocess.Popen([*program, *vqvae_arguments(songs, cut, *steps)], env=environment)
    while len(list((cut / "checkpoints").glob("[0-9]*"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(by)
    assert process.wait() == (143 if by == signal.SIGTERM else -9)
    assert not (cut / "bundle").exists()
    subprocess.run([*program, *vqvae_arguments(songs, cut, *steps, "--resume")], check=True, env=environment)
    first, second = (CheckpointBundle.open(run / "bundle").tensors("vqvae") for run in (whole, cut))
    assert all(torch.equal(first.load(name), second.load(name)) for name in first.infos)
    assert (cut / "log.csv").read_text().count("\n") == 61
