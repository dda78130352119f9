"""What a step's memory is said to be, and what it was measured to be."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from _pytest.mark.structures import ParameterSet

from jukebox_deploy.benchmarks.training_memory import Case, compute, main
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.training.memory import (
    StepOptions,
    _step_memory,
    prior_batch,
    prior_step_memory,
    vqvae_step_memory,
)
from jukebox_deploy.training.objective import PriorObjective
from jukebox_deploy.training.precision import TrainingPrecision
from tests.source_tree import REPOSITORY
from tests.training.small_runs import PRIOR, SAMPLES, VQVAE

MEASURED = REPOSITORY / "benchmarks" / "results" / "training-memory-2026-11-26.json"
LIBRARIES = 100e6
"""Bytes that PyTorch, MKL and oneDNN take when they are first used, found by these measurements."""

TOLERANCE, SLACK = 0.05, 45e6
"""How far a prediction and they may be from what was measured: a part of it or so many bytes, whichever is more."""


def test_weights_moments_and_averages_are_twenty_bytes_per_parameter() -> None:
    memory = prior_step_memory(PRIOR, StepOptions())
    parameters = sum(parameter.numel() for parameter in build_prior(PRIOR).parameters())
    assert memory.total - memory.activations == 20 * parameters


@pytest.mark.parametrize("precision", [TrainingPrecision.FP32, TrainingPrecision.BF16])
def test_tensors_without_content_take_what_those_with_content_take(precision: TrainingPrecision) -> None:
    options = StepOptions(2, precision)
    objective = PriorObjective(build_prior(PRIOR), PRIOR)
    batch = prior_batch(PRIOR, 2)
    real = _step_memory(objective, lambda: objective(batch, {}).total, options)
    assert prior_step_memory(PRIOR, options) == real


def test_recomputing_takes_less_and_larger_batches_take_more() -> None:
    options = StepOptions(2, samples=SAMPLES)
    assert prior_step_memory(PRIOR, StepOptions(2, recompute=True)).total < prior_step_memory(PRIOR, options).total
    one, two = (vqvae_step_memory(VQVAE, StepOptions(n, samples=SAMPLES)).activations for n in (1, 2))
    assert 1.8 * one < two <= 2.2 * one


@cache
def measured() -> dict[tuple[str, int | None, str, bool], int]:
    cases = json.loads(MEASURED.read_text(encoding="utf-8"))["results"]
    return {(c["preset"], c["level"], c["precision"], c["recompute"]): c["step_bytes"] for c in cases}


def predicted(name: str, level: int | None, precision: str, recompute: bool) -> int:
    found: int = compute(Case(name, level, precision, recompute, 32_768))["step_bytes"]
    return found


def measured_cases() -> list[ParameterSet]:
    """All of them; few are fast enough to be computed every time."""
    fast = ("tiny", 0)
    return [pytest.param(case, marks=() if case[:2] == fast else pytest.mark.slow) for case in measured()]


@pytest.mark.parametrize("case", measured_cases())
def test_predictions_are_what_was_measured(case: tuple[str, int | None, str, bool]) -> None:
    assert predicted(*case) + LIBRARIES == pytest.approx(measured()[case], rel=TOLERANCE, abs=SLACK)


@pytest.mark.parametrize("samples", ["0", "-1"])
def test_an_example_without_samples_is_refused(samples: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--presets", "tiny", "--computed", "--samples", samples])
    assert f"--samples: expected a whole number, 1 or more, found {samples}" in capsys.readouterr().err


@pytest.mark.slow
def test_words_that_no_case_has_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--presets", "tiny", "--only", "prior", "9"])
    assert "no case has all of 'prior 9' in its name, such as 'tiny VQ-VAE fp32'" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "-m", "jukebox_deploy.benchmarks.training_memory", "--presets", "tiny"]
    subprocess.run([*command, "--only", "prior", "0", "fp32", "--out", str(out)], check=True, cwd=REPOSITORY)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert [case["recompute"] for case in document["results"]] == [False, True]
    assert all(case["step_bytes"] > 3e6 for case in document["results"])  # the weights and what belongs to them
    assert document["machine"]["packages"]["torch"] == torch.__version__
