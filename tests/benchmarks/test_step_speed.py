"""The arithmetic of the measurement on engines whose speed is known, and a run on real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.benchmarks.step_speed import Spread, StepWorkload, measure_step
from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.costs import step_bytes
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.onnx_opening import onnx_engine
from jukebox_deploy.jobs.opening import eager_engine
from jukebox_deploy.presets import preset

TINY = preset("tiny")
WORK = StepWorkload(level=1, slots=2, precision=Precision.FP32, steps=10, rounds=5)
BLOCK = TINY.prior(1).transformer.block_length


@dataclass
class Clock:
    """Time that passes only when an engine works."""

    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class FakeSession:
    """A session that takes a known time; it also notes who worked when."""

    spec: GraphSpec
    slots: int
    clock: Clock
    diary: list[tuple[str, str]]
    name: str
    step_seconds: list[float]  # of each run; the first is the warm-up
    prefill_seconds: float
    values: dict = field(default_factory=dict)

    def write(self, tensor, slot, value):
        assert value.shape == self.spec.tensor(tensor).shape({"B": 1})[1:]
        self.values[tensor, slot] = value

    def read(self, tensor, slot):
        return self.values[tensor, slot]

    def prefill(self, slots):
        assert slots == range(self.slots)
        self.clock.now += self.prefill_seconds
        for slot in slots:
            self.values["position", slot] = self.values["position", slot] + BLOCK

    def step(self, count):
        assert count == WORK.steps
        self.diary.append((self.name, f"step from {self.values['position', 0]}"))
        self.clock.now += self.step_seconds.pop(0)


class FakeEngine:
    config = TINY
    graphs = declare_graphs(TINY)

    def __init__(self, **session):
        self.session = session

    def prior_session(self, level, slots):
        return FakeSession(self.graphs[f"step_{level}"], slots, **self.session)


def measured(engine_seconds, eager_seconds):
    """The result, and the diary of both sides."""
    clock = Clock()
    diary: list[tuple[str, str]] = []
    engine: Any = FakeEngine(
        clock=clock, diary=diary, name="engine", step_seconds=engine_seconds, prefill_seconds=0.128
    )
    eager: Any = FakeEngine(clock=clock, diary=diary, name="eager", step_seconds=eager_seconds, prefill_seconds=0.64)
    return measure_step(engine, eager, WORK, probe=lambda size: 1e9, clock=clock), diary


def test_medians_quartiles_and_ratios():
    speed, _ = measured([99, 2, 4, 5, 10, 20], [99, 20, 20, 20, 20, 20])
    # 2 slots, 10 steps: 20 tokens
    assert speed.engine.tokens_per_second == Spread(1, 2, 4, 5, 10)
    assert speed.engine.step_milliseconds.median == 250
    assert speed.eager.tokens_per_second == Spread(1, 1, 1, 1, 1)
    assert speed.ratio == Spread(1, 2, 4, 5, 10)


def test_the_ratio_is_taken_within_a_round_not_between_medians():
    speed, _ = measured([99, 1, 2, 4, 8, 16], [99, 16, 8, 4, 2, 1])
    assert speed.ratio.median == 1
    assert speed.ratio.maximum == 16
    speed, _ = measured([99, 1, 1, 1, 4, 4], [99, 2, 2, 8, 8, 8])
    assert speed.ratio.median == 2  # of 2, 2, 8, 2, 2; the medians alone would say 8


def test_prefill_is_counted_in_tokens_of_all_slots():
    speed, _ = measured([1] * 6, [1] * 6)
    assert speed.engine.prefill_milliseconds.median == pytest.approx(128 / (2 * BLOCK))
    assert speed.eager.prefill_milliseconds.median == pytest.approx(640 / (2 * BLOCK))


def test_the_warm_up_is_no_round():
    speed, diary = measured([1000, 1, 1, 1, 1, 1], [1000, 1, 1, 1, 1, 1])
    assert speed.engine.step_milliseconds.maximum == 50
    assert len(diary) == 2 * (1 + WORK.rounds)


def test_the_sides_take_turns_and_begin_in_turn():
    _, diary = measured([1] * 6, [1] * 6)
    first_to_work = [diary[i][0] for i in range(0, len(diary), 2)]
    assert first_to_work == ["engine", "engine", "eager", "engine", "eager", "engine"]
    assert all({diary[i][0], diary[i + 1][0]} == {"engine", "eager"} for i in range(0, len(diary), 2))


def test_every_round_does_the_same_work_from_the_middle_of_the_window():
    _, diary = measured([1] * 6, [1] * 6)
    assert {what for _, what in diary} == {"step from 512"}


def test_the_limit_is_what_the_memory_allows():
    speed, _ = measured([4] * 6, [4] * 6)
    moved = step_bytes(TINY.prior(1), 2, Precision.FP32)
    assert speed.step_bytes == moved
    assert speed.limit_tokens_per_second == pytest.approx(2 * 1e9 / moved)
    assert speed.share_of_limit == pytest.approx(5 / speed.limit_tokens_per_second)


def test_times_real_time_is_that_of_one_song():
    speed, _ = measured([4] * 6, [4] * 6)
    codes_per_second = TINY.vqvae.sample_rate / TINY.vqvae.hop_length(1)
    assert speed.times_real_time == pytest.approx(2.5 / codes_per_second)


def test_too_few_rounds_or_too_many_steps_are_refused():
    with pytest.raises(ConfigError, match="4 rounds"):
        StepWorkload(1, 1, Precision.FP32, rounds=4)
    with pytest.raises(ConfigError, match="0 steps"):
        StepWorkload(1, 1, Precision.FP32, steps=0)
    engine: Any = FakeEngine()
    with pytest.raises(ConfigError, match="513 steps do not fit into half a window of level 1; give at most 512"):
        measure_step(engine, engine, StepWorkload(1, 1, Precision.FP32, steps=513))


def test_a_real_engine_is_measured(tiny_engine_bundle, tiny_checkpoint):
    pytest.importorskip("onnxruntime")
    eager = eager_engine(tiny_checkpoint, tiny_engine_bundle.graphs)
    work = StepWorkload(level=2, slots=1, precision=Precision.FP32, steps=2)
    data = measure_step(onnx_engine(tiny_engine_bundle), eager, work, probe=lambda size: 1e9).to_json()
    assert data["workload"] == {"level": 2, "slots": 1, "precision": "fp32", "steps": 2, "rounds": 5}
    for side in ("engine", "eager"):
        assert set(data[side]) == {"tokens_per_second", "step_milliseconds", "prefill_milliseconds"}
        for spread in data[side].values():
            assert list(spread.values()) == sorted(spread.values())
            assert spread["minimum"] > 0
    assert all(np.isfinite(data[name]) and data[name] > 0 for name in ("times_real_time", "share_of_limit"))
