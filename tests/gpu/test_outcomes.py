"""The table and the file of a run on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import Agreement, BackendChecks, BenchmarkRun
from jukebox_deploy.jobs.verification.report import CheckKind, VerifyReport, check_of_error, not_run
from tests.gpu import conftest
from tests.gpu.outcomes import AGREEMENT, Outcomes, agreement_of

MACHINE = Machine("a processor", 2, None, "a system", "3.11", {}, 1e10, gpu="NVIDIA H200 (141 GB)")


def report(when: str = "call", skipped: str = "", failed: str = "", numbers: Sequence[Agreement] = ()) -> Any:
    longrepr = ("a file", 1, f"Skipped: {skipped}") if skipped else failed
    return SimpleNamespace(
        when=when,
        skipped=bool(skipped),
        failed=bool(failed),
        longrepr=longrepr,
        nodeid="tests/gpu/x.py::test_it[b]",
        user_properties=[("other", 1), *((AGREEMENT, asdict(number)) for number in numbers)],
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


NUMBERS = [
    Agreement("int8", "step_1", "rounding", "times what fp16 costs", 1.5, 3.0),
    Agreement("int8", "step_1", "logits", "nats of mean KL", None, 1e-3),
]


def test_numbers_are_kept_whether_or_not_the_test_passes():
    outcomes = Outcomes(gpu="a GPU")
    outcomes.note("tensorrt", report("setup", numbers=NUMBERS))  # each phase of a test has all its properties
    outcomes.note("tensorrt", report(failed="E: numbers differ", numbers=NUMBERS))
    outcomes.note("eager", report(numbers=NUMBERS[:1]))
    assert {checks.backend: list(checks.agreement) for checks in outcomes.checks()} == {
        "tensorrt": NUMBERS,
        "eager": NUMBERS[:1],
    }


def test_the_numbers_of_a_verification_are_those_that_were_measured():
    checks = (
        check_of_error("step_1", CheckKind.ROUNDING, "B=2", "times what fp16 costs", 1.5, 3.0),
        not_run("step_1", CheckKind.PROBABILITIES, "no limit"),
        check_of_error("step_1", CheckKind.LOGITS, "B=2", "nats of mean KL", math.nan, 1e-3),
    )
    assert agreement_of("int8", VerifyReport("", "", "", "", {}, {}, checks)) == NUMBERS


def test_the_file_is_a_benchmark_run_with_the_checks(tmp_path):
    checks = (BackendChecks("eager", 9, (), "", tuple(NUMBERS)), BackendChecks("tensorrt", 0, ("test_it: E",), ""))
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
