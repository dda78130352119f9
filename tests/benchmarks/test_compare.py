"""What got faster or slower between two runs, and what is not to be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jukebox_deploy.benchmarks.compare import Verdict, compare, machine_differences, verdict_of
from jukebox_deploy.benchmarks.results import Backend, Spread, WorkloadResult
from tests.benchmarks.benchmark_documents import BASE, MACHINE, RUN, step, variant


def run_with(*variants, **fields):
    return replace(RUN, results=(WorkloadResult(step(**fields), variants),))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((9, 10, 11), (12, 13, 14), Verdict.FASTER),
        ((12, 13, 14), (9, 10, 11), Verdict.SLOWER),
        ((9, 10, 12.5), (12, 13, 14), Verdict.UNCLEAR),  # the middle halves overlap
        ((9.99, 10, 10.01), (10.2, 10.25, 10.3), Verdict.UNCLEAR),  # the medians hardly differ
        ((10, 10, 10), (10, 10, 10), Verdict.UNCLEAR),
    ],
)
def test_a_verdict_needs_distance_and_separate_rounds(before, after, expected):
    first, second = (Spread(low - 5, low, middle, high, high + 5) for low, middle, high in (before, after))
    assert verdict_of(first, second) is expected


def test_the_threshold_is_a_choice():
    before, after = run_with(variant(Backend.EAGER, 10.0)), run_with(variant(Backend.EAGER, 11.0))
    assert compare(before, after).changes[0].verdict is Verdict.FASTER
    assert compare(before, after, threshold=0.2).changes[0].verdict is Verdict.UNCLEAR
    assert compare(before, after).changes[0].ratio == pytest.approx(1.1)


def test_what_only_one_run_has_is_told():
    before = run_with(variant(Backend.EAGER, 10.0), variant(Backend.ONNXRUNTIME, 10.0))
    after = run_with(variant(Backend.EAGER, 10.0), variant(Backend.ONNXRUNTIME, 20.0, "int8"))
    comparison = compare(before, after)
    assert [change.variant for change in comparison.changes] == ["eager fp32"]
    assert [one.variant for one in comparison.only_before] == ["onnxruntime fp32"]
    assert [one.variant for one in comparison.only_after] == ["onnxruntime fp32, int8 weights"]


def test_other_workloads_are_not_compared():
    comparison = compare(run_with(variant(Backend.EAGER, 1.0)), run_with(variant(Backend.EAGER, 1.0), slots=4))
    assert comparison.changes == ()
    assert len(comparison.only_before) == len(comparison.only_after) == 1


def test_a_longer_round_of_the_same_work_is_compared():
    comparison = compare(
        run_with(variant(Backend.EAGER, 1.0)), run_with(variant(Backend.EAGER, 1.0), units_per_round=640.0)
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
        "memory read at 20 GB/s before, at 10 GB/s after",
    ]


def test_the_same_machine_read_a_little_slower_gets_none():
    assert compare(RUN, replace(RUN, machine=replace(MACHINE, read_bytes_per_second=1.9e10))).warnings == ()


def test_a_comparison_is_plain_data():
    data = json.loads(json.dumps(compare(RUN, RUN).to_json()))
    assert len(data["changes"]) == sum(len(result.variants) for result in RUN.results)
    assert data["changes"][0]["variant"] == BASE.variants[0].name
    assert {change["verdict"] for change in data["changes"]} == {"no clear change"}
    assert {change["ratio"] for change in data["changes"]} == {1.0}
