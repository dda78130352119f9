"""A whole run: workload by workload, all variants of one in turn."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.benchmarks.gpu import gpu_bandwidth
from jukebox_deploy.benchmarks.machine import LARGE_READ, read_bandwidth
from jukebox_deploy.benchmarks.plan import BenchmarkPlan, Stage, plan_stages
from jukebox_deploy.benchmarks.results import (
    Latency,
    MemoryLimit,
    VariantResult,
    Workload,
    WorkloadKind,
    WorkloadResult,
)
from jukebox_deploy.benchmarks.rounds import Clock, Task, Timing, time_in_turns
from jukebox_deploy.benchmarks.variant_memory import MemoryRequest, peak_memory
from jukebox_deploy.benchmarks.variants import Subjects, Variant, choose_baselines
from jukebox_deploy.errors import ConfigError

Listener = Callable[[str], None]


def _probe(size: int) -> float:
    """Shorter than the machine's own, for there is one after each round."""
    return read_bandwidth(size, rounds=2)


@dataclass(frozen=True)
class Instruments:
    """What measures; tests put in their own."""

    clock: Clock = time.perf_counter
    probe: Callable[[int], float] = _probe  # number of bytes -> bytes per second
    peak_memory: Callable[[MemoryRequest], int] = peak_memory

    @staticmethod
    def of(device: str) -> Instruments:
        """Those for what runs on a device, "cpu" or "cuda"."""
        return Instruments() if device == "cpu" else Instruments(probe=gpu_bandwidth)


def measure(
    subjects: Subjects,
    plan: BenchmarkPlan,
    listener: Listener = lambda text: None,
    instruments: Instruments | None = None,
) -> Iterator[WorkloadResult]:
    """Measure workload by workload; `listener` is told what comes next.

    Raises `EngineError` for graphs or slots that a bundle lacks, `ConfigError` for what cannot be timed.
    """
    instruments = instruments or Instruments.of(plan.device)
    with tempfile.TemporaryDirectory(prefix="jukebox-benchmark-") as scratch:
        stages = plan_stages(subjects.config, subjects.first.graphs, plan, Path(scratch))
        chosen = [_choose(subjects, plan, stage) for stage in stages]  # all, before the first is measured
        for number, (stage, choice) in enumerate(zip(stages, chosen, strict=True)):

            def say(text: str, place: str = f"{number + 1} of {len(stages)}", title: str = stage.title) -> None:
                listener(f"{place}, {title}: {text}")

            yield from _StageRun(subjects, plan, stage, choice, instruments, say).results()


@dataclass(frozen=True)
class _Choice:
    """The variants of a stage, and a sentence for every one that is left out."""

    variants: list[Variant]
    left_out: list[str]


def _choose(subjects: Subjects, plan: BenchmarkPlan, stage: Stage) -> _Choice:
    baselines, left_out = choose_baselines(subjects, plan.compared, stage.kinds[0], stage.prior, stage.slots)
    variants = baselines if plan.only_baselines else [*subjects.engines, *baselines]
    if plan.mapped:
        found = subjects.mapped_engines(stage.graph) if stage.graph.states else []
        variants = [*variants, *found]
        if not found:
            left_out.append("no engine with mapped weights: that is for large float weights of step and prefill")
    if not variants:
        raise ConfigError(f"nothing is left to measure for {stage.kinds[0]}: {'; '.join(left_out)}.")
    return _Choice(variants, left_out)


@dataclass(frozen=True)
class _Side:
    """A variant, opened for a stage."""

    variant: Variant
    threads: int
    opened: object
    load_seconds: float | None


@dataclass(frozen=True)
class _Moved:
    """Bytes of a step: with no slot, which are the weights, with one, and with all."""

    weights: int
    one: int
    all: int

    @property
    def probed(self) -> int:
        """Bytes to read, to know how fast the machine reads as many."""
        return min(self.all, LARGE_READ)

    def limit(self, bandwidths: Sequence[float]) -> MemoryLimit:
        """With what was read per second after each round."""
        median = statistics.median(bandwidths)
        return MemoryLimit(self.weights, self.one - self.weights, self.all, median, tuple(bandwidths))


@dataclass(frozen=True)
class _StageRun:
    """One stage: everything that it opens is released with it."""

    subjects: Subjects
    plan: BenchmarkPlan
    stage: Stage
    choice: _Choice
    instruments: Instruments
    say: Listener

    def results(self) -> Iterator[WorkloadResult]:
        """One result per workload of the stage; the first one has the seconds of loading."""
        left_out = self.choice.left_out
        sides = [self._open(variant) for variant in self.choice.variants]
        for workload, make_task in self.stage.tasks:
            reasons = {side.variant.backend: side.variant.reason_to_leave_out(workload.kind) for side in sides}
            apart = [side for side in sides if not reasons[side.variant.backend]]
            notes = (*left_out, *(f"{name} is left out: {reason}" for name, reason in reasons.items() if reason))
            if apart:
                yield self._measure(workload, apart, [make_task(side.opened) for side in apart], notes)
            else:
                self.say(f"{workload.kind}: {'; '.join(notes)}")
            sides = [replace(side, load_seconds=None) for side in sides]

    def _open(self, variant: Variant) -> _Side:
        self.say(f"opening {variant.backend}, {variant.stored} weights")
        graph = self.stage.graph
        threads = self.plan.threads or self.subjects.threads(variant, graph)
        shares = not variant.is_engine and self.subjects.has_loaded(graph.model_level)
        begun = self.instruments.clock()
        opened = self.stage.open(self.subjects.open(variant, threads))
        seconds = self.instruments.clock() - begun
        return _Side(variant, threads, opened, None if shares else seconds)

    def _measure(
        self, workload: Workload, sides: Sequence[_Side], tasks: Sequence[Task], left_out: tuple[str, ...]
    ) -> WorkloadResult:
        moved = [self._moved(workload, side.variant) for side in sides]
        bandwidths: dict[int, list[float]] = {step.probed: [] for step in moved if step}

        def probe() -> None:
            for size, found in bandwidths.items():
                found.append(self.instruments.probe(size))

        def say(text: str) -> None:
            self.say(f"{workload.kind}, {text}")

        timings = time_in_turns(tasks, self.plan.rounds, say, self.instruments.clock, probe)
        limits = [None if step is None else step.limit(bandwidths[step.probed]) for step in moved]
        results = [self._result(workload, *one) for one in zip(sides, timings, limits, strict=True)]
        results[0] = replace(results[0], notes=left_out)
        return WorkloadResult(workload, tuple(results))

    def _result(self, workload: Workload, side: _Side, timing: Timing, limit: MemoryLimit | None) -> VariantResult:
        variant = side.variant
        units = workload.units_per_round * timing.passes
        return VariantResult(
            backend=variant.backend,
            precision=str(variant.precision),
            weights=variant.stored,
            threads=side.threads if self.plan.device == "cpu" else None,
            units_per_second=tuple(units / seconds for seconds in timing.rounds),
            latency=Latency.of(timing.calls),
            load_seconds=side.load_seconds,
            first_seconds=timing.first,
            peak_memory_bytes=self._peak_memory(workload, side) if self.plan.memory else None,
            limit=limit,
            calls_per_round=timing.passes * timing.calls_per_pass,
        )

    def _moved(self, workload: Workload, variant: Variant) -> _Moved | None:
        """What a step must move of this variant's own bytes."""
        if workload.kind is not WorkloadKind.STEP:
            return None
        return _Moved(*(self.subjects.step_bytes(variant, workload.level, slots) for slots in (0, 1, workload.slots)))

    def _peak_memory(self, workload: Workload, side: _Side) -> int:
        self.say(f"{workload.kind}, memory of {side.variant.backend}")
        variant, plan = side.variant, self.plan
        checkpoint = None if variant.checkpoint is None else str(variant.checkpoint)
        return self.instruments.peak_memory(
            MemoryRequest(
                backend=variant.backend,
                bundle=str(variant.bundle),
                checkpoint=checkpoint,
                kind=workload.kind,
                level=workload.level,
                slots=workload.slots,
                threads=side.threads,
                steps=plan.steps,
                seconds=plan.seconds,
                position=plan.position,
                mapped=variant.mapped,
                songs=plan.songs,
            )
        )
