"""What all backends run: how often it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError
from tests.gpu import backends
from tests.gpu.backends import Material

NOTHING: Any = None  # what no build here looks at


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Material]:
    """Everything that was built, or rather refused, by a flavour that is installed."""
    found: list[Material] = []

    def build(material: Material, target: Target) -> None:
        found.append(material)
        raise error_of(target)

    monkeypatch.setattr(backends, "_UNKNOWING", {})
    monkeypatch.setattr(backends, "load_flavour", lambda target: None)
    monkeypatch.setattr(Material, "_build", build)
    return found


def error_of(target: Target) -> EngineError:
    return NoDeviceError("unknown GPU") if target is Target.TENSORRT_RTX else EngineError("out of order")


def refuse(material: Material, target: Target) -> None:
    with pytest.raises(EngineError, match=str(error_of(target))):
        material.engines(target)


def test_a_flavour_that_does_not_know_the_gpu_is_tried_with_one_model_only(builds: list[Material]) -> None:
    first, second = (Material(NOTHING, NOTHING, Path(), "9.0") for _ in range(2))
    for material in (first, first, second):
        refuse(material, Target.TENSORRT_RTX)
    assert builds == [first]


def test_a_build_that_fails_is_tried_once_with_every_model(builds: list[Material]) -> None:
    first, second = (Material(NOTHING, NOTHING, Path(), "9.0", (slots,)) for slots in (1, 4))
    for material in (first, first, second):
        refuse(material, Target.TENSORRT)
    assert builds == [first, second]
