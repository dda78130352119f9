"""Documents of benchmark runs: written and read again, ratios by round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import (
    Backend,
    BenchmarkRun,
    Latency,
    MemoryLimit,
    VariantResult,
    Workload,
    WorkloadKind,
    WorkloadResult,
)
from jukebox_deploy.errors import JukeboxError

MACHINE = Machine("a processor", 2, 1 << 34, "a system", "3.11", {"torch": "2.13.0"}, 2.5e10)
LIMIT = MemoryLimit(weight_bytes=100, cache_bytes_per_slot=20, step_bytes=180, read_bytes_per_second=1800.0)
ENGINE = VariantResult(Backend.ONNXRUNTIME, "fp32", "int8", 2, (8.0, 12.0, 4.0), Latency(1.0, 2.0, 3.0), limit=LIMIT)
EAGER = VariantResult(Backend.EAGER, "fp32", "fp32", 2, (4.0, 4.0, 4.0), Latency(1.0, 2.0, 3.0))
RESULT = WorkloadResult(Workload(WorkloadKind.STEP, "tiny", 0, slots=4, units_per_round=32), (ENGINE, EAGER))
RUN = BenchmarkRun("jukebox-deploy bench run", "2026-01-01T00:00:00Z", MACHINE, (RESULT,))


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    """Nothing is lost on the way through JSON."""
    RUN.save(tmp_path / "run.json")
    assert BenchmarkRun.load(tmp_path / "run.json") == RUN


def test_ratios_are_taken_within_rounds() -> None:
    """2, 3 and 1 times: the median of ratios, not the ratio of medians of other rounds."""
    assert ENGINE.ratio_over(EAGER).median == 2.0
    assert ENGINE.ratio_over(EAGER).maximum == 3.0


def test_the_memory_limit_counts_all_slots() -> None:
    """Ten steps a second, four codes each."""
    assert LIMIT.units_per_second(4) == 40.0


def test_variants_are_found_by_backend_and_weights() -> None:
    """And named by what distinguishes them."""
    assert RESULT.variant(Backend.EAGER) is EAGER
    assert RESULT.variant(Backend.ONNXRUNTIME, "int4") is None
    assert ENGINE.name == "onnxruntime fp32, int8 weights"
    assert EAGER.name == "eager fp32"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "cannot be read"),
        ("[]", "expected the format"),
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
