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


def test_without_a_gpu_the_reason_is_told_once():
    outcomes = Outcomes()
    for backend in ("eager", "tensorrt"):
        outcomes.note(backend, report("setup", skipped="there is no driver."))
    assert outcomes.lines() == ["not run, no backend on a GPU: there is no driver."]


def test_the_file_is_a_benchmark_run_with_the_checks(tmp_path, monkeypatch):
    monkeypatch.setattr("jukebox_deploy.benchmarks.machine.describe_this_machine", lambda: MACHINE)
    checks = (BackendChecks("eager", 9, (), ""), BackendChecks("tensorrt", 0, ("test_it: E",), ""))
    path = conftest._write(tmp_path, "NVIDIA H200 (141 GB)", None, checks)
    assert path.name.endswith("-nvidia-h200-141-gb.json")
    run = BenchmarkRun.load(path)
    assert (run.checks, run.machine) == (checks, MACHINE)
