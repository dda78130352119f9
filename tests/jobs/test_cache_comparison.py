"""What a step writes into a cache is compared, not the random values around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.jobs.comparison import parity
from jukebox_deploy.presets import preset
from tests.engines.handmade_graphs import cache_spec


@dataclass
class Writes:
    """Stands for an engine whose step writes small values at one position of its cache."""

    value: float
    position: int = 3
    config: JukeboxConfig = field(default_factory=lambda: preset("tiny"))


def run(engine: Writes, spec: GraphSpec, slots: int, feed: Any) -> Iterator[tuple[str, np.ndarray]]:
    for tensor in spec.outputs:
        array = feed(tensor).copy() if tensor.in_place else np.zeros(tensor.shape({"B": slots}), tensor.dtype)
        if tensor.in_place:
            array[:, :, engine.position] = engine.value
        yield tensor.output_name, array


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (Writes(1e-3), True),
        (Writes(1.02e-3), True),  # within the limit in fp16
        (Writes(1.1e-3), False),  # a ten-thousandth of the largest of the random values
        (Writes(1e-3, position=4), False),
    ],
)
def test_the_limit_is_relative_to_what_a_step_wrote(found: Any, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "run_graph", run)
    expected: Any = Writes(1e-3)
    spec = cache_spec()
    rows = parity.compare_graph(lambda: expected, found, spec, {"B": 2}, 0)
    caches = [row for row in rows if any(t.in_place and t.output_name == row.tensor for t in spec.tensors)]
    assert caches
    assert {row.holds for row in caches} == {holds}
