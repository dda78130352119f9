"""The results of a benchmark run: one JSON document per run, which reports and comparisons read.

The speed of every round is kept. Variants of a workload take turns, so round `i` of one variant and round `i` of
another ran under the same conditions. Ratios are therefore taken within each round, and their median is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.config_json import config_to_dict, read_record_file
from jukebox_deploy.errors import ConfigError, JukeboxError
from jukebox_deploy.files import write_json_atomic
from jukebox_deploy.listing import words_of

FORMAT = "jukebox-deploy benchmark 1"
_RENAMED = {"units_per_round": "units_per_pass"}  # keys of older files

CALLS_FOR_PERCENTILES = 500
"""Number of timed calls from which on the 99th percentile is shown; with fewer, the slowest call is shown instead."""

STEADY = 0.2
"""Largest range of a variant's rounds, as a share of their median, that gets no warning."""


class WorkloadKind(StrEnum):
    """What is timed. The comment names the unit that its speed is counted in."""

    STEP = "step"  # codes, of all slots together
    PREFILL = "prefill"  # codes, of all slots together
    CONDITION = "condition"  # windows
    ENCODE = "encode"  # seconds of audio
    DECODE = "decode"  # seconds of audio
    SONG = "song"  # seconds of audio


class Backend(StrEnum):
    """The program that runs a workload: an engine or a baseline."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"
    EAGER = "eager"  # PyTorch with caches that grow by concatenation, as in the original
    EAGER_STATIC = "eager-static"  # this project's PyTorch modules, with in-place caches
    EAGER_RECORDED = "eager-recorded"  # the same, with the step recorded as a CUDA graph
    TORCH_COMPILE = "torch-compile"  # the same, with the step compiled; on a GPU also recorded
    HUGGING_FACE = "hugging-face"  # the prior of `transformers`


@dataclass(frozen=True)
class Workload:
    """A unit of work that is timed. All variants do the same work on the same weights.

    Raises `ConfigError` for less than one slot or song, and for a number of songs if the workload is no song.
    """

    kind: WorkloadKind
    model: str  # name of the configuration
    level: int
    slots: int = 1
    position: int | None = None  # in the window, of the first timed step or prefilled code
    units_per_pass: float = 0.0  # codes, windows or seconds of audio per pass; a round is one or more passes
    width: int | None = None  # of the prior; `None` for the VQ-VAE and for songs
    depth: int | None = None  # in layers; `None` as for `width`
    context: int | None = None  # in tokens; `None` as for `width`
    songs: int | None = None  # number of songs that the slots sample; `None`: one per slot, or not a song

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ConfigError(f"the workload {self.kind} has {self.slots} slots; expected 1 or more.")
        if self.songs is not None and (self.songs < 1 or self.kind is not WorkloadKind.SONG):
            raise ConfigError(
                f"the workload {self.kind} has {self.songs} songs; expected 1 or more for the workload "
                f"{WorkloadKind.SONG}, and no number of songs for any other."
            )

    @property
    def songs_or_slots(self) -> int:
        """The number of songs; for other workloads, the number of slots."""
        return self.songs or self.slots


@dataclass(frozen=True)
class MemoryLimit:
    """The highest speed that memory allows a step: the bytes it must move, and the measured bandwidth.

    Raises `ConfigError` unless the bytes of a step and all bandwidths are positive.
    """

    weight_bytes: int  # that a step reads, whatever the number of slots
    cache_bytes_per_slot: int  # that a step moves per slot, averaged over the window
    step_bytes: int  # that a step of all slots must move
    read_bytes_per_second: float  # the median of `rounds`, or the only measurement
    rounds: tuple[float, ...] = ()  # bytes per second, measured after each round; empty if measured only once

    def __post_init__(self) -> None:
        if self.step_bytes <= 0:
            raise ConfigError(f"the memory limit of a step: expected more than 0 bytes, found {self.step_bytes}.")
        for bandwidth in (self.read_bytes_per_second, *self.rounds):
            if not 0 < bandwidth < math.inf:
                raise ConfigError(f"the memory limit of a step: expected a positive bandwidth, found {bandwidth}.")

    def units_per_second(self, slots: int) -> float:
        """Return the limit in codes per second, of all slots together."""
        return slots * self.read_bytes_per_second / self.step_bytes


@dataclass(frozen=True)
class Spread:
    """The distribution of a quantity over the rounds."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Return the distribution of the values; quartiles are interpolated linearly."""
        return Spread(*(float(q) for q in np.percentile(values, (0, 25, 50, 75, 100))))


@dataclass(frozen=True)
class Latency:
    """Seconds per call: a step of all slots, a prefill block, a window, a stretch of audio, or the songs.

    Raises `ConfigError` for values that contradict each other.
    """

    p50: float
    p90: float
    p99: float
    maximum: float | None = None  # `None` in older files, as `calls`
    calls: int | None = None  # number of timed calls

    def __post_init__(self) -> None:
        if not 0 < self.p50 <= self.p90 <= self.p99 < math.inf:
            raise ConfigError(f"latency: expected positive percentiles in ascending order, found {self.numbers}.")
        if self.maximum is not None and not self.p99 <= self.maximum < math.inf:
            raise ConfigError(f"latency: expected a maximum that no percentile exceeds, found {self.numbers}.")
        if (self.maximum is None) != (self.calls is None) or self.calls == 0:
            raise ConfigError(
                f"latency: expected both a maximum and a number of calls, or neither, found {self.numbers}."
            )

    @property
    def numbers(self) -> str:
        """All numbers with their names, for messages."""
        return words_of(f"{name} {'none' if value is None else value}" for name, value in asdict(self).items())

    @staticmethod
    def of(seconds: Sequence[float]) -> Latency:
        """Return the latency of timed calls; percentiles are interpolated linearly."""
        p50, p90, p99, maximum = (float(q) for q in np.percentile(seconds, (50, 90, 99, 100)))
        return Latency(p50, p90, p99, maximum, len(seconds))

    @property
    def supports_p99(self) -> bool:
        """Whether enough calls were timed to estimate the 99th percentile."""
        return self.calls is not None and self.calls >= CALLS_FOR_PERCENTILES


@dataclass(frozen=True)
class VariantResult:
    """The measurements of one variant in one workload. Raises `ConfigError` unless every round has a positive speed."""

    backend: Backend
    precision: str  # of the stack's arithmetic: fp32, fp16 or bf16
    weights: str  # weight format: as `precision`, or int8, int4, fp8 or mapped
    threads: int | None  # `None` on a GPU
    units_per_second: tuple[float, ...]  # one per round
    latency: Latency
    load_seconds: float | None = None  # from files to ready, except songs (see `first_seconds`); `None`: loaded before
    first_seconds: float | None = None  # the first call after loading; that of a song also opens its graphs
    peak_memory_bytes: int | None = None  # of a separate process; `None` if not measured
    limit: MemoryLimit | None = None  # for this variant's own bytes; `None` if the workload is no step
    notes: tuple[str, ...] = ()  # sentences without a full stop
    calls_per_round: int | None = None  # `None` in older files

    def __post_init__(self) -> None:
        if not self.units_per_second or not all(0 < speed < math.inf for speed in self.units_per_second):
            found = words_of(map(str, self.units_per_second)) or "none"
            raise ConfigError(f"{self.name}: expected rounds with positive speeds, found {found}.")

    @property
    def name(self) -> str:
        """Backend and precision, and the weight format if it is another one: `onnxruntime fp32, int8 weights`."""
        weights = "" if self.weights == self.precision else f", {self.weights} weights"
        return f"{self.backend} {self.precision}{weights}"

    @property
    def speed(self) -> Spread:
        """The distribution of the rounds' speeds, in units per second."""
        return Spread.of(self.units_per_second)

    @property
    def is_steady(self) -> bool:
        """Whether the rounds are similar enough to rule out large disturbances by other programs."""
        return self.round_range <= STEADY

    @property
    def round_range(self) -> float:
        """The difference of the fastest and the slowest round, as a share of the median."""
        speed = self.speed
        return (speed.maximum - speed.minimum) / speed.median

    def ratio_over(self, baseline: VariantResult) -> Spread:
        """Return the distribution of `ratios_over`."""
        return Spread.of(self.ratios_over(baseline))

    def ratios_over(self, baseline: VariantResult) -> tuple[float, ...]:
        """Return this variant's speed divided by that of a baseline of the same workload, one ratio per round."""
        return tuple(a / b for a, b in zip(self.units_per_second, baseline.units_per_second, strict=True))


@dataclass(frozen=True)
class WorkloadResult:
    """All variants of one workload. Raises `ConfigError` unless they have the same number of rounds."""

    workload: Workload
    variants: tuple[VariantResult, ...]

    def __post_init__(self) -> None:
        if len(counts := {len(variant.units_per_second) for variant in self.variants}) > 1:
            raise ConfigError(
                f"the workload {self.workload.kind} of {self.workload.model}: expected the same number of rounds for "
                f"each variant, found {' and '.join(map(str, sorted(counts)))}."
            )

    def variant(self, backend: Backend) -> VariantResult | None:
        """Return the first variant of a backend, or `None`."""
        return next((v for v in self.variants if v.backend == backend), None)


@dataclass(frozen=True)
class Agreement:
    """One number of a verification: how closely an engine agrees with PyTorch."""

    case: str  # what was exported, such as "int8"
    graph: str
    check: str  # the kind of check
    measure: str  # what `value` measures
    value: float | None  # `None`: not finite
    limit: float | None  # `None`: it is only reported


@dataclass(frozen=True)
class BackendChecks:
    """The outcome of a backend's tests on this machine, if they were run together with the benchmark."""

    backend: str  # the backend and its options
    passed: int
    failed: tuple[str, ...]  # one line per failed test
    left_out: str  # why the tests were not run; empty if they were
    agreement: tuple[Agreement, ...] = ()  # from which limits can be judged, also where all tests pass


@dataclass(frozen=True)
class BenchmarkRun:
    """A benchmark run on one machine."""

    command: str
    date: str  # ISO 8601, UTC
    machine: Machine
    results: tuple[WorkloadResult, ...] = field(default=())
    checks: tuple[BackendChecks, ...] = ()
    complete: bool = True  # false if the run was stopped after these results
    format: str = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Return the run as plain JSON data."""
        return config_to_dict(self)

    def save(self, path: Path) -> None:
        """Write the run as JSON; a failure leaves no partial file."""
        write_json_atomic(path, self.to_json())

    @staticmethod
    def load(path: Path) -> BenchmarkRun:
        """Read a run. Raises `JukeboxError` for a file that is missing, damaged or of another format."""
        return read_record_file(BenchmarkRun, path, FORMAT, JukeboxError, "run the benchmark again", _RENAMED)
