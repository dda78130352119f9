"""How fast a step chooses codes, against the same weights in PyTorch, and against the memory's limit.

Both sides run the same work in one process, round by round in turn, so that whatever slows the
machine down slows both. The ratio is taken within each round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.machine import LARGE_READ, read_bandwidth
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind, Precision, Role, numpy_dtype
from jukebox_deploy.costs import step_bytes, tokens_per_second
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.export.feeds import random_feed

_PREFILL_BLOCKS = 2
_ROUNDS_AT_LEAST = 5

Clock = Callable[[], float]


@dataclass(frozen=True)
class StepWorkload:
    """What is measured: in each round two blocks of prefill, then the steps, from the middle of a window."""

    level: int
    slots: int
    precision: Precision
    steps: int = 64  # per round
    rounds: int = 5

    def __post_init__(self) -> None:
        if self.rounds < _ROUNDS_AT_LEAST:
            raise ConfigError(f"{self.rounds} rounds say nothing of the spread; give at least {_ROUNDS_AT_LEAST}.")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps cannot be timed; give 1 or more.")


@dataclass(frozen=True)
class Spread:
    """The rounds of one quantity."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Quartiles by linear interpolation."""
        return Spread(*(float(q) for q in np.percentile(values, (0, 25, 50, 75, 100))))


@dataclass(frozen=True)
class SideSpeed:
    """One of the two sides. Tokens are those of all slots together."""

    tokens_per_second: Spread
    step_milliseconds: Spread  # per token
    prefill_milliseconds: Spread  # per token

    @staticmethod
    def of(rounds: Sequence[_Round], step_tokens: int, prefill_tokens: int) -> SideSpeed:
        """From the seconds of each round."""
        return SideSpeed(
            Spread.of([step_tokens / r.step_seconds for r in rounds]),
            Spread.of([1e3 * r.step_seconds / step_tokens for r in rounds]),
            Spread.of([1e3 * r.prefill_seconds / prefill_tokens for r in rounds]),
        )


@dataclass(frozen=True)
class StepSpeed:
    """What was measured for one workload, and what follows from it."""

    workload: StepWorkload
    engine: SideSpeed
    eager: SideSpeed
    ratio: Spread  # engine's over eager's tokens per second, round by round
    step_bytes: int  # that a step of all slots must move
    read_bytes_per_second: float  # of as many bytes, at most 512 MiB, with all cores
    times_real_time: float  # one song of `slots` at this level: codes over the codes of a second of audio

    @property
    def limit_tokens_per_second(self) -> float:
        """What the memory alone would allow."""
        return self.workload.slots * self.read_bytes_per_second / self.step_bytes

    @property
    def share_of_limit(self) -> float:
        """The engine's median over the limit."""
        return self.engine.tokens_per_second.median / self.limit_tokens_per_second

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        derived = {"limit_tokens_per_second": self.limit_tokens_per_second, "share_of_limit": self.share_of_limit}
        return asdict(self) | derived


@dataclass(frozen=True)
class _Round:
    prefill_seconds: float
    step_seconds: float


def measure_step(
    engine: Engine,
    eager: Engine,
    workload: StepWorkload,
    probe: Callable[[int], float] = read_bandwidth,
    clock: Clock = time.perf_counter,
) -> StepSpeed:
    """Measure step and prefill of one prior on both engines, warm-up apart.

    `probe` measures bytes per second for a number of bytes. Raises `ConfigError` for more steps than
    half a window has, `EngineError` for graphs or slots that an engine lacks.
    """
    prior = engine.config.prior(workload.level)
    middle = _middle(prior, workload.steps)
    sides = [_Side(side, prior, workload, middle, clock) for side in (engine, eager)]
    for side in sides:
        side.run()
    rounds: list[list[_Round]] = [[], []]
    for number in range(workload.rounds):
        # Who is first changes, so that neither always finds the other's data in the caches.
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            rounds[index].append(sides[index].run())
    step_tokens = workload.slots * workload.steps
    prefill_tokens = workload.slots * _PREFILL_BLOCKS * prior.transformer.block_length
    speeds = [SideSpeed.of(mine, step_tokens, prefill_tokens) for mine in rounds]
    moved = step_bytes(prior, workload.slots, workload.precision)
    per_song = speeds[0].tokens_per_second.median / workload.slots
    return StepSpeed(
        workload=workload,
        engine=speeds[0],
        eager=speeds[1],
        ratio=Spread.of([slow.step_seconds / fast.step_seconds for fast, slow in zip(*rounds, strict=True)]),
        step_bytes=moved,
        read_bytes_per_second=probe(min(moved, LARGE_READ)),
        times_real_time=per_song / tokens_per_second(engine.config.vqvae, workload.level),
    )


def _middle(prior: PriorConfig, steps: int) -> int:
    """The block's start in the middle of the window, where a step moves about the average of bytes."""
    stack = prior.transformer
    middle = max(stack.block_count // 2, _PREFILL_BLOCKS) * stack.block_length
    room = stack.context - middle
    if steps > room:
        raise ConfigError(f"{steps} steps do not fit into half a window of level {prior.level}; give at most {room}.")
    return middle


class _Side:
    """One engine's session, filled once; every run starts it from the same place."""

    def __init__(self, engine: Engine, prior: PriorConfig, workload: StepWorkload, middle: int, clock: Clock) -> None:
        self._session = engine.prior_session(workload.level, workload.slots)
        self._steps = workload.steps
        self._start = middle - _PREFILL_BLOCKS * prior.transformer.block_length
        self._middle = middle
        self._slots = range(workload.slots)
        self._clock = clock
        spec = engine.graphs[f"{GraphKind.STEP}_{workload.level}"]
        for tensor in spec.inputs:
            if tensor.role is Role.INPUT or tensor.name == "codes":
                values = random_feed(tensor, spec, engine.config, {"B": workload.slots}, seed=0)
                for slot in self._slots:
                    self._session.write(tensor.name, slot, np.asarray(values[slot]))

    def run(self) -> _Round:
        """Two blocks of prefill, then the steps; only these are timed."""
        self._write("position", self._start)
        self._write("known_end", self._middle)
        return _Round(self._time(self._prefill), self._time(lambda: self._session.step(self._steps)))

    def _prefill(self) -> None:
        for _ in range(_PREFILL_BLOCKS):
            self._session.prefill(self._slots)

    def _time(self, work: Callable[[], object]) -> float:
        begun = self._clock()
        work()
        self._session.read("position", 0)  # a device that works by itself is done when this is here
        return self._clock() - begun

    def _write(self, name: str, value: int) -> None:
        array = np.asarray(value, numpy_dtype(self._session.spec.tensor(name).dtype))
        for slot in self._slots:
            self._session.write(name, slot, array)
