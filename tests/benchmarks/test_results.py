"""Documents of benchmark runs: written and read again, ratios by round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.results import Backend, BenchmarkRun
from jukebox_deploy.errors import JukeboxError
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


def test_variants_are_found_by_backend_and_weights() -> None:
    """And named by what distinguishes them."""
    assert BASE.variant(Backend.EAGER) is EAGER
    assert BASE.variant(Backend.ONNXRUNTIME, "int8") is INT8
    assert BASE.variant(Backend.ONNXRUNTIME, "int4") is None
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
