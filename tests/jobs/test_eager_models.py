"""Which models the eager engine keeps in memory: those of open graphs, and the one that was opened last."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.eager.engine import EagerEngine
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.opening import eager
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.runtime.decode import decode_codes
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
from jukebox_deploy.runtime.song import SongRequest
from jukebox_deploy.runtime.store import Fingerprint

Loads = list[tuple[int | None, "weakref.ref[nn.Module]"]]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """All models that were loaded, by level."""
    found: Loads = []
    load = eager.load_model

    def noted(checkpoint, level, *rest):
        model = load(checkpoint, level, *rest)
        found.append((level, weakref.ref(model)))
        return model

    monkeypatch.setattr(eager, "load_model", noted)
    return found


@pytest.fixture
def engine(loads: Loads, tiny_checkpoint: CheckpointBundle) -> EagerEngine:
    return eager_engine(tiny_checkpoint, declare_graphs(tiny_checkpoint.config))


def in_memory(loads: Loads) -> list[int | None]:
    return [level for level, model in loads if model() is not None]


def test_one_prior_at_a_time(engine: EagerEngine, loads: Loads) -> None:
    session = engine.prior_session(2, 1)
    session.step(1)
    lower = engine.prior_session(1, 1)
    assert in_memory(loads) == [2, 1], "a session is open on each"
    del session
    assert in_memory(loads) == [1]
    lower.step(1)


def test_graphs_of_a_model_share_it_even_if_none_is_open_in_between(engine: EagerEngine, loads: Loads) -> None:
    for _ in range(3):
        engine.runner(GraphKind.CONDITION, 2)
    engine.prior_session(2, 1)
    assert [level for level, _ in loads] == [2]
    engine.prior_session(1, 1)
    assert in_memory(loads) == [1]
    with engine:
        assert list(decode_codes(engine, 0, np.zeros(8, np.int64)))
        assert in_memory(loads) == [None]
    assert in_memory(loads) == []


@pytest.mark.slow
def test_songs_are_sampled_with_one_prior_at_a_time(engine: EagerEngine, loads: Loads, tmp_path: Path) -> None:
    jobs = [SongJob(SongRequest(seconds=0.76, seed=1), tmp_path / "song")]
    sampler = SongSampler(engine, Fingerprint("eager", "tiny"), options=SamplingOptions(lowest_level=1))
    for _ in sampler.sample(jobs):
        assert len(in_memory(loads)) <= 1
    assert [level for level, _ in loads] == [2, 1, None]
