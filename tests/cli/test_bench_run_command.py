"""`bench run`: what it prints. No test looks at how fast this machine is today."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from jukebox_deploy.benchmarks import machine, measurement, rounds
from jukebox_deploy.benchmarks.results import BenchmarkRun
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.cli.bench_command import COMMANDS
from jukebox_deploy.cli.main import cli

SHORT = ("--steps", "2", "--baselines", "eager-static")


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch):
    monkeypatch.setattr(rounds, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "_CALL_SECONDS", 0.0)
    monkeypatch.setattr(machine, "_READ_AT_LEAST", 1 << 20)
    monkeypatch.setattr(machine, "LARGE_READ", 1 << 20)


def invoke(*arguments):
    return CliRunner().invoke(cli, ["bench", "run", *map(str, arguments)], catch_exceptions=False)


def bench(bundle, checkpoint, *arguments):
    return invoke(bundle.folder, "--against", checkpoint.folder, *SHORT, *arguments)


def test_the_group_has_its_commands():
    result = CliRunner().invoke(cli, ["bench", "-h"])
    assert all(name in result.stdout for name in COMMANDS)
    result = CliRunner().invoke(cli, ["bench", "rnu"])
    assert result.exit_code == 2
    assert "'run'" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_group_has_help(name):
    result = CliRunner().invoke(cli, ["bench", name, "-h"])
    assert result.exit_code == 0
    assert "bench " + name in result.stdout


def test_the_last_line_is_one_json_document(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    out = tmp_path / "speed.json"
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "1,2", "--level", "1", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    run = BenchmarkRun.load(out)
    assert run.complete
    assert json.loads(json.dumps(run.to_json())) == document
    assert run.machine.packages["torch"]
    assert run.command.startswith("jukebox-deploy bench run ") or " bench run " in run.command
    assert "--slots 1,2 --level 1" in run.command
    works = [(r.workload.kind, r.workload.level, r.workload.slots) for r in run.results]
    assert works == [("step", 1, 1), ("prefill", 1, 1), ("step", 1, 2), ("prefill", 1, 2)]
    assert {v.threads for r in run.results for v in r.variants} == {1}  # the weights are small
    assert {v.backend for r in run.results for v in r.variants} == {"onnxruntime", "eager-static"}


def test_what_was_finished_is_kept_when_a_run_is_stopped(tiny_engine_bundle, tiny_checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "speed.json"

    def stopped(*arguments):
        for result in measure(*arguments):
            yield result
            assert [kept.workload for kept in BenchmarkRun.load(out).results] == [result.workload]
            raise KeyboardInterrupt

    measure = measurement.measure
    monkeypatch.setattr(measurement, "measure", stopped)
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "1,2", "--level", "1", "--out", out)
    assert result.exit_code != 0
    assert not BenchmarkRun.load(out).complete


def test_a_plan_that_does_not_fit_is_refused_before_a_preset_is_made(tmp_path):
    result = invoke("--preset", "tiny", "--workdir", tmp_path / "work", "--level", 0, "--position", 1000)
    assert result.exit_code == 1
    assert "64 steps from position 1000 do not fit" in result.output
    assert not (tmp_path / "work").exists()


def test_all_priors_are_measured_top_first(tiny_engine_bundle, tiny_checkpoint):
    result = bench(
        tiny_engine_bundle, tiny_checkpoint, "--slots", "1", "--threads", "2", "--json", "--workloads", "step"
    )
    results = json.loads(result.stdout)["results"]
    assert [r["workload"]["level"] for r in results] == [2, 1, 0]
    assert {v["threads"] for r in results for v in r["variants"]} == {2}


def test_people_get_tables(tiny_engine_bundle, tiny_checkpoint):
    result = invoke(
        tiny_engine_bundle.folder, "--against", tiny_checkpoint.folder, "--slots", 1, "--level", 0, "--steps", 2
    )
    assert result.exit_code == 0, result.output
    for word in (
        "tokens/s",
        "eager-static fp32",
        "memory's",
        "limit",
        "Prefill of tiny",
        "GB/s",
        "per step",
        "load",
        "max",
    ):
        assert word in result.output


def test_a_preset_is_made_and_measured(tmp_path):
    arguments = ("--preset", "tiny", "--workdir", tmp_path, "--level", 1, "--workloads", "step", *SHORT, "--json")
    for _ in range(2):  # the second time from the work folder
        result = invoke(*arguments, "--slots", 1)
        assert result.exit_code == 0, result.output
        (step,) = json.loads(result.stdout)["results"]
        assert step["workload"]["model"] == "tiny"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("here",),
        ("here", "--against", "there", "--workdir", "elsewhere"),
        ("--preset", "tiny"),
        ("here", "--preset", "tiny", "--workdir", "elsewhere"),
        ("--preset", "tiny", "--against", "there", "--workdir", "elsewhere"),
    ],
)
def test_either_bundles_or_a_preset(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "ENGINE_BUNDLE" in result.output or "--workdir" in result.output


@pytest.mark.parametrize("arguments", [("here", "--against", "there"), ("--preset", "tiny", "--workdir", "here")])
def test_quality_is_for_integer_weights_of_a_preset(arguments):
    result = invoke(*arguments, "--quality")
    assert result.exit_code == 2
    assert "--weights int8" in result.output


@pytest.mark.parametrize("slots", ["0", "1,-4", "some", "1.5", ""])
def test_slots_are_positive_numbers(tiny_engine_bundle, tiny_checkpoint, slots):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", slots)
    assert result.exit_code == 2
    assert "--slots" in result.output


@pytest.mark.parametrize("option", ["--workloads", "--baselines", "--weights"])
def test_names_are_known_ones(tiny_engine_bundle, tiny_checkpoint, option):
    result = bench(tiny_engine_bundle, tiny_checkpoint, option, "nothing")
    assert result.exit_code == 2
    assert "nothing: unknown; choose from" in result.output


def test_songs_have_no_level(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--workloads", "step,song", "--level", "1")
    assert result.exit_code == 2
    assert "--level 1: a song is sampled at every level; drop --level" in " ".join(result.output.split())


def test_fewer_than_five_rounds_are_refused(tiny_engine_bundle, tiny_checkpoint):
    assert bench(tiny_engine_bundle, tiny_checkpoint, "--rounds", "4").exit_code == 2


def test_more_slots_than_the_engine_was_made_for_are_refused(tiny_engine_bundle, tiny_checkpoint):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--slots", "99", "--level", "0")
    assert result.exit_code == 1
    assert "99 slots asked for" in result.output


@pytest.mark.parametrize(("workload", "graph"), [("step", "step_3"), ("decode", "vqvae_decode_3")])
def test_a_level_that_is_not_there_is_refused(tiny_engine_bundle, tiny_checkpoint, workload, graph):
    result = bench(tiny_engine_bundle, tiny_checkpoint, "--level", "3", "--workloads", workload)
    assert result.exit_code == 1
    assert graph in result.output


@pytest.mark.parametrize("option", ["--workloads", "--weights"])
def test_an_empty_list_is_refused(option):
    result = invoke("--preset", "tiny", "--workdir", "work", option, "")
    assert result.exit_code == 2
    assert "an empty list" in result.output


def test_bundles_have_their_own_weights():
    result = invoke("here", "--against", "there", "--weights", "int8")
    assert result.exit_code == 2
    assert "--weights belongs to --preset" in result.output


def test_another_checkpoint_is_refused(tiny_engine_bundle, tmp_path):
    result = bench(tiny_engine_bundle, write_random_bundle("tiny", tmp_path / "other", seed=1))
    assert result.exit_code == 1
    assert "was not made from" in result.output
