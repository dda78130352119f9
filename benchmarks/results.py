"""What a benchmark run leaves behind: one JSON document per run, read by reports and comparisons.

Rounds are kept one by one. Variants of a workload take turns, so that round `i` of one and round
`i` of another saw the same machine: ratios are taken within rounds, then their median.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.config_json import config_to_dict, read_record_file
from jukebox_deploy.errors import ConfigError, JukeboxError
from jukebox_deploy.files import write_json_atomic

FORMAT = "jukebox-deploy benchmark 1"

CALLS_FOR_PERCENTILES = 500
"""Calls of which one in a hundred can be told."""

STEADY = 0.2
"""Rounds whose range is less, over their median, get no warning."""


class WorkloadKind(StrEnum):
    """What is timed, and in what its speed is counted."""

    STEP = "step"  # codes, of all slots together
    PREFILL = "prefill"  # codes, of all slots together
    CONDITION = "condition"  # windows
    ENCODE = "encode"  # seconds of audio
    DECODE = "decode"  # seconds of audio
    SONG = "song"  # seconds of audio


class Backend(StrEnum):
    """Who does the work."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    EAGER = "eager"  # the original's way in PyTorch: caches that grow by concatenation
    EAGER_STATIC = "eager-static"  # our own modules in PyTorch: caches in place
    EAGER_RECORDED = "eager-recorded"  # the same, a step recorded as a CUDA graph
    TORCH_COMPILE = "torch-compile"  # the same, a step compiled, and on a GPU recorded too
    HUGGING_FACE = "hugging-face"  # the prior of `transformers`


@dataclass(frozen=True)
class Workload:
    """One thing to do. Variants of one workload do the same work on the same weights."""

    kind: WorkloadKind
    model: str  # name of the configuration
    level: int
    slots: int = 1
    position: int | None = None  # in the window, of the first timed step or prefilled code
    units_per_round: float = 0.0  # codes, windows or seconds of audio of a pass; a round has one or more of those
    width: int | None = None  # of the prior; `None` for the VQ-VAE and songs
    depth: int | None = None
    context: int | None = None
    songs: int | None = None  # that the slots make; `None`: as many as there are slots

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ConfigError(f"a workload has at least one slot, found {self.slots}.")
        if self.songs is not None and (self.songs < 1 or self.kind is not WorkloadKind.SONG):
            raise ConfigError(f"a song workload makes at least one song, and others none, found {self.songs}.")

    @property
    def songs_or_slots(self) -> int:
        """How many songs are made, or how many slots do the work once."""
        return self.songs or self.slots


@dataclass(frozen=True)
class MemoryLimit:
    """What the memory alone would allow a step: its bytes, and the bandwidth measured in this run."""

    weight_bytes: int
    cache_bytes_per_slot: int  # that a step reads, on average over the window
    step_bytes: int  # that a step of all slots must move
    read_bytes_per_second: float  # the median of those after each round
    rounds: tuple[float, ...] = ()  # bytes per second after each round; none where it was measured once

    def __post_init__(self) -> None:
        if self.step_bytes <= 0 or not 0 < self.read_bytes_per_second < math.inf:
            raise ConfigError(f"a memory limit needs bytes and a bandwidth above zero, found {self}.")
        if not all(0 < read < math.inf for read in self.rounds):
            raise ConfigError(f"a memory limit needs a bandwidth above zero after each round, found {self}.")

    def units_per_second(self, slots: int) -> float:
        """Codes per second of all slots together."""
        return slots * self.read_bytes_per_second / self.step_bytes


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
class Latency:
    """Seconds of single calls (a step of all slots, a prefill block, a window, a stretch of audio, a song)."""

    p50: float
    p90: float
    p99: float
    maximum: float | None = None  # `None`, as the next, in files that do not say
    calls: int | None = None  # that were timed

    def __post_init__(self) -> None:
        if not 0 < self.p50 <= self.p90 <= self.p99 < math.inf:
            raise ConfigError(f"expected percentiles above zero, ascending, found {self}.")
        if self.maximum is not None and not self.p99 <= self.maximum < math.inf:
            raise ConfigError(f"expected no percentile above the maximum, found {self}.")
        if (self.maximum is None) != (self.calls is None) or self.calls == 0:
            raise ConfigError(f"expected a maximum and the number of calls that it is of, found {self}.")

    @staticmethod
    def of(seconds: Sequence[float]) -> Latency:
        """Percentiles by linear interpolation."""
        p50, p90, p99, maximum = (float(q) for q in np.percentile(seconds, (50, 90, 99, 100)))
        return Latency(p50, p90, p99, maximum, len(seconds))

    @property
    def tells_percentiles(self) -> bool:
        """Whether so many calls were timed that one in a hundred can be told."""
        return self.calls is not None and self.calls >= CALLS_FOR_PERCENTILES


@dataclass(frozen=True)
class VariantResult:
    """One variant's rounds of one workload."""

    backend: Backend
    precision: str  # of the stack's arithmetic: fp32, fp16, bf16
    weights: str  # how weights are stored: as `precision`, or int8, int4, fp8
    threads: int | None  # `None` on a GPU
    units_per_second: tuple[float, ...]  # round by round
    latency: Latency
    load_seconds: float | None = None  # from files to ready; `None` where it shares what another loaded
    first_seconds: float | None = None  # the first call after loading
    peak_memory_bytes: int | None = None  # of a process that did nothing else
    limit: MemoryLimit | None = None  # of this variant's own bytes; `None` where memory is not what limits
    notes: tuple[str, ...] = ()
    calls_per_round: int | None = None  # `None` in files that do not say

    def __post_init__(self) -> None:
        if not self.units_per_second or not all(0 < speed < math.inf for speed in self.units_per_second):
            raise ConfigError(f"{self.name}: expected rounds with speeds above zero, found {self.units_per_second}.")

    @property
    def name(self) -> str:
        """Backend, precision, and how weights are stored if otherwise."""
        stored = "" if self.weights == self.precision else f", {self.weights} weights"
        return f"{self.backend} {self.precision}{stored}"

    @property
    def speed(self) -> Spread:
        """Units per second."""
        return Spread.of(self.units_per_second)

    @property
    def is_steady(self) -> bool:
        """Whether the rounds are so alike that other programs can hardly have disturbed them."""
        return self.round_range <= STEADY

    @property
    def round_range(self) -> float:
        """From the slowest round to the fastest, over the median."""
        speed = self.speed
        return (speed.maximum - speed.minimum) / speed.median

    def ratio_over(self, baseline: VariantResult) -> Spread:
        """How many times as fast as a baseline of the same workload, round by round."""
        return Spread.of(self.ratios_over(baseline))

    def ratios_over(self, baseline: VariantResult) -> tuple[float, ...]:
        """The same, each round by itself."""
        return tuple(a / b for a, b in zip(self.units_per_second, baseline.units_per_second, strict=True))


@dataclass(frozen=True)
class WorkloadResult:
    """All variants of one workload, which took turns."""

    workload: Workload
    variants: tuple[VariantResult, ...]

    def __post_init__(self) -> None:
        if len(counts := {len(variant.units_per_second) for variant in self.variants}) > 1:
            raise ConfigError(f"{self.workload}: variants take turns, but their rounds are {sorted(counts)}.")

    def variant(self, backend: Backend) -> VariantResult | None:
        """The first variant of a backend."""
        return next((v for v in self.variants if v.backend == backend), None)


@dataclass(frozen=True)
class BackendChecks:
    """What the tests of a backend found on the machine, where they were run beside the benchmark."""

    backend: str  # and how it was run
    passed: int
    failed: tuple[str, ...]  # a line each
    left_out: str  # why it was not run; empty if it was


@dataclass(frozen=True)
class BenchmarkRun:
    """One run on one machine."""

    command: str
    date: str  # ISO 8601, UTC
    machine: Machine
    results: tuple[WorkloadResult, ...] = field(default=())
    checks: tuple[BackendChecks, ...] = ()
    complete: bool = True  # `False`: stopped before its end, after these results
    format: str = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return config_to_dict(self)

    def save(self, path: Path) -> None:
        """Write the document, whole or not at all."""
        write_json_atomic(path, self.to_json())

    @staticmethod
    def load(path: Path) -> BenchmarkRun:
        """Read a document. Raises `JukeboxError` if it is none, or of another format."""
        return read_record_file(BenchmarkRun, path, FORMAT, JukeboxError, "run the benchmark again")
