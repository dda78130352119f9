from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.training.settings import OptimiserSettings, Part
from tests.training.small_runs import settings


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan")])
def test_moments_that_never_move_or_grow_without_limit_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name}: expected 0 or more and below 1"):
        replace(OptimiserSettings(), **{name: value})  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_examples_without_a_length_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="seconds: expected a finite number above 0"):
        settings(Part.VQVAE, seconds=seconds)
