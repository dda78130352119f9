from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.training.settings import Cadence, OptimiserSettings, Part
from tests.training.small_runs import settings


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_moments_that_never_move_or_grow_without_limit_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected 0 or more and below 1"):
        replace(OptimiserSettings(), **{name: value})  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("name", ["learning_rate", "epsilon", "weight_decay", "clip", "ignore_norm"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_numbers_of_the_optimiser_are_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name.replace('_', ' ')}: expected a finite number"):
        replace(OptimiserSettings(), **{name: value})  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, r"seed: expected an integer from 0 to 2\^64 - 1, found -1"),
        ({"seed": 2**64}, "seed: expected"),
        ({"average_decay": 1.0}, "average decay: expected 0 or more and below 1, found 1.0"),
        ({"average_decay": -0.1}, "average decay: expected"),
        ({"average_decay": float("nan")}, "average decay: expected"),
        ({"revival_threshold": -1.0}, "revival threshold: expected a finite number"),
        ({"revival_threshold": float("inf")}, "revival threshold: expected a finite number"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(Part.VQVAE, **changes)


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_checkpoints_that_are_never_written_are_refused(minutes: float) -> None:
    with pytest.raises(ConfigError, match="checkpoint minutes"):
        Cadence(checkpoint_minutes=minutes)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_examples_without_a_length_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds: expected a finite number above 0"):
        settings(Part.VQVAE, seconds=seconds)
