"""Documents of benchmark runs: written and read again, ratios by round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.results import Backend, BenchmarkRun, Latency, MemoryLimit
from jukebox_deploy.errors import ConfigError, JukeboxError
from tests.benchmarks.benchmark_documents import BANDWIDTH, BASE, RUN, limit

ENGINE, INT8, EAGER, _ = BASE.variants


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    """Nothing is lost on the way through JSON."""
    RUN.save(tmp_path / "run.json")
    assert BenchmarkRun.load(tmp_path / "run.json") == RUN


def test_ratios_are_taken_within_rounds() -> None:
    """2, 3 and 1 times: the median of ratios, not the ratio of medians of other rounds."""
    engine = replace(ENGINE, units_per_second=(8.0, 12.0, 4.0))
    eager = replace(EAGER, units_per_second=(4.0, 4.0, 4.0))
    assert engine.ratio_over(eager).median == 2.0
    assert engine.ratio_over(eager).maximum == 3.0


def test_the_memory_limit_counts_all_slots() -> None:
    """Ten steps a second, four codes each."""
    assert limit(int(BANDWIDTH / 10)).units_per_second(4) == 40.0


def test_percentiles_are_told_by_enough_calls() -> None:
    assert Latency.of([0.001] * 499 + [0.002]).supports_p99
    few = Latency.of([0.001] * 63 + [0.002])
    assert (few.calls, few.maximum, few.supports_p99) == (64, 0.002, False)
    assert not Latency(0.001, 0.002, 0.003).supports_p99  # of a file that does not say


def test_rounds_that_differ_much_are_unsteady() -> None:
    assert EAGER.is_steady
    disturbed = replace(EAGER, units_per_second=(10.0, 10.0, 10.0, 8.0, 10.5))
    assert disturbed.round_range == pytest.approx(0.25)
    assert not disturbed.is_steady


@pytest.mark.parametrize(
    "made",
    [
        lambda: Latency(1.0, 2.0, 3.0, 2.5, 64),
        lambda: Latency(1.0, 2.0, 3.0, 4.0),
        lambda: Latency(1.0, 2.0, 3.0, None, 64),
        lambda: MemoryLimit(1, 1, 2, 1.0, (1.0, 0.0)),
    ],
)
def test_numbers_that_cannot_be_are_refused(made) -> None:
    with pytest.raises(ConfigError, match="found"):
        made()


def test_older_files_lack_what_is_kept_now(tmp_path: Path) -> None:
    data = RUN.to_json()
    del data["complete"]
    for result in data["results"]:
        result["workload"]["units_per_round"] = result["workload"].pop("units_per_pass")
        for variant in result["variants"]:
            del variant["calls_per_round"], variant["latency"]["calls"], variant["latency"]["maximum"]
            if variant["limit"]:
                del variant["limit"]["rounds"]
    (tmp_path / "old.json").write_text(json.dumps(data))
    old = BenchmarkRun.load(tmp_path / "old.json")
    assert old.complete
    assert old.results[0].variants[0].latency.calls is None
    assert old.results[0].workload == RUN.results[0].workload


def test_variants_are_found_by_backend_and_named_by_what_distinguishes_them() -> None:
    assert BASE.variant(Backend.EAGER) is EAGER
    assert BASE.variant(Backend.TENSORRT) is None
    assert INT8.name == "onnxruntime fp32, int8 weights"
    assert EAGER.name == "eager fp32"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "is not a readable JSON document"),
        ("[]", "has the format None, expected"),
        (json.dumps(replace(RUN, format="something else 7").to_json()), "something else 7"),
        (json.dumps({**RUN.to_json(), "results": 3}), "expected a list"),
        (json.dumps({**RUN.to_json(), "more": 3}), "unknown keys"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """One sentence, with the file's name."""
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(JukeboxError, match=rf"other\.json.*{message}"):
        BenchmarkRun.load(path)
