"""`bench`: what it prints. No test looks at how fast this machine is today."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from jukebox_deploy.benchmarks import machine
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.cli.main import cli


@pytest.fixture(autouse=True)
def small_reads(monkeypatch):
    monkeypatch.setattr(machine, "_READ_AT_LEAST", 1 << 20)
    monkeypatch.setattr(machine, "LARGE_READ", 1 << 20)


def bench(bundle, checkpoint, *arguments):
    command = ["bench", str(bundle.folder), "--against", str(checkpoint.folder), "--steps", "2", *arguments]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_the_last_line_is_one_json_document(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    out = tmp_path / "speed.json"
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "1,2", "--level", "1", "--json", "--out", str(out))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert json.loads(out.read_text()) == report
    assert report["checkpoint"] == tiny_checkpoint.fingerprint()
    assert (report["model"], report["target"]) == ("tiny", "onnxruntime")
    assert report["machine"]["packages"]["torch"]
    assert [(p["workload"]["level"], p["workload"]["slots"]) for p in report["priors"]] == [(1, 1), (1, 2)]
    assert {p["threads"] for p in report["priors"]} == {1}  # the weights are small


def test_all_priors_are_measured_top_first(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "1", "--threads", "2", "--json")
    priors = json.loads(result.stdout)["priors"]
    assert [prior["workload"]["level"] for prior in priors] == [2, 1, 0]
    assert {prior["threads"] for prior in priors} == {2}


def test_people_get_a_table(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "1", "--level", "0")
    assert result.exit_code == 0, result.output
    for word in ("tokens/s", "PyTorch", "ratio", "memory's limit", "real time", "prefill", "GB/s"):
        assert word in result.output


@pytest.mark.parametrize("slots", ["0", "1,-4", "some", "1,,2", ""])
def test_slots_are_positive_numbers(tiny_engine_bundle, tiny_checkpoint, slots):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", slots)
    assert result.exit_code == 2
    assert "--slots" in result.output


def test_fewer_than_five_rounds_are_refused(tiny_engine_bundle, tiny_checkpoint):
    assert bench(tiny_engine_bundle, tiny_checkpoint, "--rounds", "4").exit_code == 2


def test_more_slots_than_the_engine_was_made_for_are_refused(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "99", "--level", "0")
    assert result.exit_code == 1
    assert "99 slots asked for" in result.output


def test_a_level_that_is_not_there_is_refused(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--level", "3")
    assert result.exit_code == 1
    assert "step_3" in result.output


def test_another_checkpoint_is_refused(tiny_engine_bundle, tmp_path):
    result = bench(tiny_engine_bundle, write_random_bundle("tiny", tmp_path / "other", seed=1))
    assert result.exit_code == 1
    assert "was not made from" in result.output
