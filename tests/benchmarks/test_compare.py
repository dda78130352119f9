"""What got faster or slower between two runs, and what is not to be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.benchmarks.compare import Verdict, compare, machine_differences
from jukebox_deploy.benchmarks.results import Backend, WorkloadResult
from jukebox_deploy.engines.installed_gpus import Gpu
from tests.benchmarks.benchmark_documents import BASE, MACHINE, RUN, step, variant


def run_with(*variants, **fields):
    return replace(RUN, results=(WorkloadResult(step(**fields), variants),))


def rounds(backend, *speeds):
    """A variant with these rounds."""
    return replace(variant(backend, speeds[0]), units_per_second=tuple(map(float, speeds)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((9, 10, 11, 10, 9), (12, 13, 14, 13, 12), Verdict.FASTER),
        ((12, 13, 14, 13, 12), (9, 10, 11, 10, 9), Verdict.SLOWER),
        ((9, 10, 10, 11, 15), (12, 13, 13, 13, 14), Verdict.UNCLEAR),  # the middle halves are apart, the ranks are not
        ((9.99, 10, 10, 10, 10.01), (10.2, 10.2, 10.25, 10.3, 10.3), Verdict.UNCLEAR),  # the medians hardly differ
        ((10,) * 5, (10,) * 5, Verdict.UNCLEAR),
    ],
)
def test_a_verdict_needs_distance_and_ranks_apart(before, after, expected):
    comparison = compare(run_with(rounds(Backend.EAGER, *before)), run_with(rounds(Backend.EAGER, *after)))
    assert [change.verdict for change in comparison.changes] == [expected]
    assert comparison.conclusive


def test_the_threshold_is_a_choice():
    before, after = run_with(variant(Backend.EAGER, 10.0)), run_with(variant(Backend.EAGER, 11.0))
    assert compare(before, after).changes[0].verdict is Verdict.FASTER
    assert compare(before, after, threshold=0.2).changes[0].verdict is Verdict.UNCLEAR
    assert compare(before, after).changes[0].ratio == pytest.approx(1.1)


def test_a_machine_that_is_slower_slows_no_engine():
    eager, engine = (8, 10, 9, 11, 10), (39, 52, 44, 56, 50)
    before = run_with(rounds(Backend.EAGER, *eager), rounds(Backend.ONNXRUNTIME, *engine))
    busy = run_with(*(rounds(v.backend, *(0.31 * u for u in v.units_per_second)) for v in before.results[0].variants))
    comparison = compare(before, busy)
    (change,), (drift,) = comparison.changes, comparison.drifts
    assert (change.variant, change.baseline, change.verdict) == ("onnxruntime fp32", "eager fp32", Verdict.UNCLEAR)
    assert change.ratio == pytest.approx(1.0)
    assert (drift.baseline, drift.shared) == ("eager fp32", True)
    assert drift.ratio == pytest.approx(0.31)
    (drift,) = compare(before, busy, threshold=3.0).drifts  # a quarter as fast is less than that
    assert not drift.shared


def test_an_engine_that_is_slower_on_a_faster_machine_is_found():
    before = run_with(variant(Backend.EAGER, 10.0), variant(Backend.ONNXRUNTIME, 50.0))
    after = run_with(variant(Backend.EAGER, 20.0), variant(Backend.ONNXRUNTIME, 60.0))
    (change,), (drift,) = compare(before, after).changes, compare(before, after).drifts
    assert change.verdict is Verdict.SLOWER
    assert (drift.shared, compare(before, run_with(*after.results[0].variants[:1])).drifts) == (True, ())
    slowed = run_with(variant(Backend.EAGER, 20.0), variant(Backend.ONNXRUNTIME, 50.0))
    assert not compare(before, slowed).drifts[0].shared


def test_runs_of_one_machine_seldom_differ():
    """Where nothing changed, a comparison of many results finds something in one case of twenty at most."""
    chance = np.random.default_rng(0)

    def made():
        machine = chance.lognormal(0.0, 0.3, 7)
        engines = [rounds(Backend.ONNXRUNTIME, *(50 * machine * chance.lognormal(0.0, 0.1, 7))) for _ in range(8)]
        engines = [replace(engine, weights=str(number)) for number, engine in enumerate(engines)]
        return run_with(rounds(Backend.EAGER, *(10 * machine)), *engines)

    found = sum(any(c.verdict is not Verdict.UNCLEAR for c in compare(made(), made()).changes) for _ in range(200))
    assert found <= 16


def test_too_few_rounds_for_many_results_are_told():
    engines = [variant(Backend.ONNXRUNTIME, 10.0, str(number)) for number in range(7)]
    slower = [replace(engine, units_per_second=tuple(u / 2 for u in engine.units_per_second)) for engine in engines]
    comparison = compare(run_with(*engines), run_with(*slower))
    assert {change.verdict for change in comparison.changes} == {Verdict.UNCLEAR}
    assert not comparison.conclusive
    (remark,) = comparison.remarks
    assert remark.startswith("too few rounds to distinguish changes of 7 results from chance: the runs have 5 and 5 ")
    assert remark.endswith("--rounds 6 or more")


def test_a_run_that_was_stopped_is_told():
    assert compare(RUN, replace(RUN, complete=False)).remarks[0].startswith("B was stopped before its end")


def test_what_only_one_run_has_is_told():
    before = run_with(variant(Backend.EAGER, 10.0), variant(Backend.ONNXRUNTIME, 10.0))
    after = run_with(variant(Backend.EAGER, 10.0), variant(Backend.ONNXRUNTIME, 20.0, "int8"))
    comparison = compare(before, after)
    assert [(change.variant, change.baseline) for change in comparison.changes] == [("eager fp32", None)]
    assert [one.variant for one in comparison.only_before] == ["onnxruntime fp32"]
    assert [one.variant for one in comparison.only_after] == ["onnxruntime fp32, int8 weights"]


def test_other_workloads_are_not_compared():
    comparison = compare(run_with(variant(Backend.EAGER, 1.0)), run_with(variant(Backend.EAGER, 1.0), slots=4))
    assert comparison.changes == ()
    assert len(comparison.only_before) == len(comparison.only_after) == 1


def test_a_longer_round_of_the_same_work_is_compared():
    comparison = compare(
        run_with(variant(Backend.EAGER, 1.0)), run_with(variant(Backend.EAGER, 1.0), units_per_pass=640.0)
    )
    assert len(comparison.changes) == 1


def test_threads_are_told_apart_where_there_are_several():
    one, two = (variant(Backend.ONNXRUNTIME, 10.0 * threads, threads=threads) for threads in (1, 2))
    eight = variant(Backend.ONNXRUNTIME, 80.0, threads=8)
    assert [c.threads for c in compare(run_with(one, two), run_with(two, one)).changes] == [(1, 1), (2, 2)]
    assert [c.threads for c in compare(run_with(one, two), run_with(two)).changes] == [(2, 2)]
    assert [c.threads for c in compare(run_with(two), run_with(eight)).changes] == [(2, 8)]


def test_machines_that_differ_get_a_warning_each():
    other = replace(
        MACHINE, processor="another", packages={"torch": "3", "onnxruntime": "2"}, read_bytes_per_second=1e10
    )
    assert list(machine_differences(MACHINE, other)) == [
        "processor: a processor before, another after",
        "onnxruntime: none before, 2 after",
        "torch: 2.13.0 before, 3 after",
        "memory read at 20.0 GB/s before, at 10.0 GB/s after",
    ]


def test_hardware_is_described_in_words():
    gpu = Gpu("NVIDIA L4", 24_000_000_000, "8.9", None)
    other = replace(MACHINE, memory_bytes=None, gpu=gpu.name, gpus=(gpu,))
    assert list(machine_differences(MACHINE, other)) == [
        "memory: 17,179,869,184 bytes before, unknown after",
        "GPU that did the work: none before, NVIDIA L4 after",
        "GPUs: none before, NVIDIA L4, 24.0 GB, compute capability 8.9 after",
    ]


def test_the_same_machine_read_a_little_slower_gets_none():
    assert compare(RUN, replace(RUN, machine=replace(MACHINE, read_bytes_per_second=1.9e10))).warnings == ()


def test_a_comparison_is_plain_data():
    data = json.loads(json.dumps(compare(RUN, RUN).to_json()))
    baselines = len(data["drifts"])
    assert (baselines, data["drifts"][0]["ratio"]) == (2, 1.0)
    assert len(data["changes"]) == sum(len(result.variants) for result in RUN.results) - baselines
    assert data["changes"][0]["variant"] == BASE.variants[0].name
    assert {change["verdict"] for change in data["changes"]} == {"no clear change"}
    assert {change["ratio"] for change in data["changes"]} == {1.0}
