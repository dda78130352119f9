"""`evaluate`: what it prints and how it exits."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from jukebox_deploy.cli.evaluate_command import _signed
from jukebox_deploy.cli.main import cli
from jukebox_deploy.jobs.evaluate_job import BundleResult, Evaluation, PriorResult
from jukebox_deploy.jobs.evaluation import bundles as evaluated_bundles
from jukebox_deploy.jobs.evaluation.data import DataChoice
from jukebox_deploy.jobs.evaluation.token_scoring import PriorScore, score_with_model
from jukebox_deploy.training.metrics import TokenScore
from tests.jobs.small_evaluation import joint_lyrics_config, write_checkpoint, write_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    return write_songs(tmp_path_factory.mktemp("songs"), 6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(joint_lyrics_config(), tmp_path_factory.mktemp("model") / "checkpoint").folder


def run(*arguments):
    command = ["evaluate", *map(str, arguments), "--windows", "5", "--seconds", "0.5"]
    return CliRunner().invoke(cli, command)


def test_sound_codes_and_priors_have_their_tables(checkpoint, songs):
    result = run(checkpoint, "--data", songs, "--all")
    assert result.exit_code == 0, result.output
    parts = (f"{songs}: 6 songs", "VQ-VAE", "perplexity", "prior 0, 5 windows", "lyrics,", "PyTorch")
    for part in (*parts, "codes in 6 songs"):
        assert part in result.stdout


def test_json_is_one_document_and_the_file_has_the_same(checkpoint, songs, tmp_path):
    out = tmp_path / "report.json"
    result = run(checkpoint, "--data", songs, "--train-fraction", 0.5, "--json", "--out", out)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["held_out"] is True
    assert document["train_fraction"] == 0.5
    assert 0 < document["songs"] < 6
    assert [prior["level"] for bundle in document["bundles"] for prior in bundle["priors"]] == [0]
    assert json.loads(out.read_text()) == document


def test_json_begins_with_how_it_was_made(checkpoint, songs):
    document = json.loads(run(checkpoint, "--data", songs, "--all", "--json").stdout)
    assert list(document)[:3] == ["command", "date", "machine"]
    assert document["command"].endswith(f"evaluate {checkpoint} --data {songs} --all --json --windows 5 --seconds 0.5")
    assert datetime.fromisoformat(document["date"]).tzinfo is not None
    assert document["machine"]["packages"]["torch"]
    assert {"processor", "cores", "python", "gpus"} <= set(document["machine"])


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_for_the_time_of_a_run(checkpoint, songs, monkeypatch, threads):
    seen, before = [], torch.get_num_threads()

    def score(*arguments):
        seen.append(torch.get_num_threads())
        return score_with_model(*arguments)

    monkeypatch.setattr(evaluated_bundles, "score_with_model", score)
    assert run(checkpoint, "--data", songs, "--all", "--threads", threads).exit_code == 0
    assert seen == [threads]
    assert torch.get_num_threads() == before


def test_the_checkpoint_to_compare_with_comes_first(checkpoint, songs):
    other = write_checkpoint(joint_lyrics_config(), checkpoint.parent / "again").folder
    document = json.loads(run(other, "--against", checkpoint, "--data", songs, "--all", "--json").stdout)
    assert [bundle["bundle"] for bundle in document["bundles"]] == [str(checkpoint), str(other)]
    assert [bundle["priors"][0]["cost"] for bundle in document["bundles"]] == [0, 0]


def test_what_costs_more_than_a_percent_is_marked(monkeypatch):
    def bundle(name: str, bits: float | None) -> BundleResult:
        score = None if bits is None else PriorScore(TokenScore(bits * 100, 40, 100))
        return BundleResult(name, "onnxruntime", "fp32", name, (PriorResult(0, 4, score, "" if score else "no way"),))

    results = (bundle("fp32", 5), bundle("int8", 5.02), bundle("int4", 5.1), bundle("fp8", math.nan), bundle("x", None))
    evaluation = Evaluation(DataChoice(Path("songs")), 4, (), results)
    monkeypatch.setattr("jukebox_deploy.jobs.evaluate_job.evaluate", lambda request, listen: evaluation)
    result = run("bundle", "--data", "songs")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if "onnxruntime" in line}
    assert "%" not in rows["fp32"].replace("40.0%", "")
    assert "+0.40%" in rows["int8"]
    assert "over" not in rows["int8"]
    assert "+2.00%" in rows["int4"]
    assert rows["int4"].rstrip().endswith("over 1%")
    assert rows["fp8"].rstrip().endswith("over 1%")
    assert rows["x"].rstrip().endswith("not run")
    assert "x: not run: no way" in result.stdout


@pytest.mark.parametrize(("cost", "text"), [(-1e-9, "+0.00%"), (0.0123, "+1.23%"), (-0.2, "-20.00%")])
def test_signs(cost, text):
    assert _signed(cost) == text


def test_nothing_held_out_is_a_sentence(checkpoint, songs, tmp_path):
    out = tmp_path / "report.json"
    result = run(checkpoint, "--data", songs, "--train-fraction", 1, "--out", out)
    assert result.exit_code == 1
    assert "evaluate on --all" in result.stderr
    assert not out.exists()


def test_a_folder_that_is_no_bundle_is_a_sentence(songs, tmp_path):
    result = run(tmp_path, "--data", songs)
    assert result.exit_code == 1
    assert "no checkpoint bundle" in result.stderr


def test_a_bundle_is_required():
    result = CliRunner().invoke(cli, ["evaluate", "--data", "songs"])
    assert result.exit_code == 2
