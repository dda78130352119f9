"""The table and the file of a run on a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import BackendChecks, BenchmarkRun
from tests.gpu import conftest
from tests.gpu.outcomes import Outcomes

MACHINE = Machine("a processor", 2, None, "a system", "3.11", {}, 1e10, gpu="NVIDIA H200 (141 GB)")


def report(when: str = "call", skipped: str = "", failed: str = "") -> Any:
    longrepr = ("a file", 1, f"Skipped: {skipped}") if skipped else failed
    return SimpleNamespace(
        when=when, skipped=bool(skipped), failed=bool(failed), longrepr=longrepr, nodeid="tests/gpu/x.py::test_it[b]"
    )


def test_a_table_tells_what_passed_failed_and_was_left_out():
    outcomes = Outcomes(gpu="a GPU")
    for when in ("setup", "call", "teardown"):
        outcomes.note("eager", report(when))
    outcomes.note("tensorrt", report(failed="E: numbers differ\nand more"))
    outcomes.note("tensorrt-rtx", report("setup", skipped="not installed"))
    assert outcomes.lines() == [
        "on a GPU:",
        "  eager         1 passed, 0 failed",
        "  tensorrt      0 passed, 1 failed\n      test_it[b]: E: numbers differ",
        "  tensorrt-rtx  not run: not installed",
    ]


def test_what_was_not_run_is_told_beside_what_was():
    outcomes = Outcomes(gpu="a GPU")
    outcomes.note("eager", report())
    outcomes.note("eager", report("setup", skipped="CUDA is unusable"))
    assert outcomes.lines()[1] == "  eager  1 passed, 0 failed; not all were run: CUDA is unusable"


def test_a_test_that_takes_the_process_with_it_has_failed():
    outcomes = Outcomes(gpu="a GPU")
    outcomes.begin("tensorrt", "tests/gpu/x.py::test_it[b]")
    assert outcomes.checks() == (BackendChecks("tensorrt", 0, ("test_it[b]: the process ended in this test",), ""),)
    outcomes.note("tensorrt", report())
    assert outcomes.checks() == (BackendChecks("tensorrt", 1, (), ""),)


def test_without_a_gpu_the_reason_is_told_once():
    outcomes = Outcomes()
    for backend in ("eager", "tensorrt"):
        outcomes.note(backend, report("setup", skipped="there is no driver."))
    assert outcomes.lines() == ["not run, no backend on a GPU: there is no driver."]


def test_the_file_is_a_benchmark_run_with_the_checks(tmp_path):
    checks = (BackendChecks("eager", 9, (), ""), BackendChecks("tensorrt", 0, ("test_it: E",), ""))
    run = BenchmarkRun("make gpu-test", "2026-11-29T12:00:00Z", MACHINE, checks=checks)
    path = conftest.write(tmp_path, run, "NVIDIA H200 (141 GB)")
    assert path.name == "2026-11-29-nvidia-h200-141-gb.json"
    run = BenchmarkRun.load(path)
    assert (run.checks, run.machine) == (checks, MACHINE)


def test_a_second_run_of_a_day_keeps_the_first(tmp_path):
    first, second = (BenchmarkRun("make gpu-test", f"2026-11-29T{hour}:00:00Z", MACHINE) for hour in (12, 15))
    paths = [conftest.write(tmp_path, run, "a GPU") for run in (first, first, second, second)]
    assert [path.name for path in paths[1:3]] == ["2026-11-29-a-gpu.json", "2026-11-29T15-00-00-a-gpu.json"]
    assert [BenchmarkRun.load(path).date for path in sorted(set(paths))] == [first.date, second.date]
