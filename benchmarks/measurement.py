"""A benchmark run: one workload after another; in each, all variants take turns."""

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
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.errors import ConfigError

Listener = Callable[[str], None]
"""Called with a text that says what is done next."""


def _probe_memory(size: int) -> float:
    """Return the bytes per second of reading `size` bytes; in few rounds, because it is called after every round."""
    return read_bandwidth(size, rounds=2)


@dataclass(frozen=True)
class Instruments:
    """The measuring functions; tests replace them."""

    clock: Clock = time.perf_counter
    probe: Callable[[int], float] = _probe_memory  # bytes to read -> bytes per second
    peak_memory: Callable[[MemoryRequest], int] = peak_memory  # -> bytes

    @staticmethod
    def of(device: str) -> Instruments:
        """Return the instruments for a device, one of `PYTORCH_PROVIDERS`."""
        return Instruments() if device == Provider.CPU else Instruments(probe=gpu_bandwidth)


def measure(
    subjects: Subjects,
    plan: BenchmarkPlan,
    listener: Listener = lambda text: None,
    instruments: Instruments | None = None,
) -> Iterator[WorkloadResult]:
    """Measure all workloads of a plan and yield the result of each as soon as it is known.

    Raises `EngineError` if a bundle lacks a graph or the number of slots, and `ConfigError` for a workload that cannot
    be timed or has no variants, both before the first measurement.
    """
    instruments = instruments or Instruments.of(plan.device)
    with tempfile.TemporaryDirectory(prefix="jukebox-benchmark-") as scratch:
        stages = plan_stages(subjects.config, subjects.first.graphs, plan, Path(scratch))
        participants = [_choose_participants(subjects, plan, stage) for stage in stages]
        for number, (stage, chosen) in enumerate(zip(stages, participants, strict=True)):

            def notify(text: str, place: str = f"{number + 1} of {len(stages)}", title: str = stage.title) -> None:
                listener(f"{place}, {title}: {text}")

            yield from _StageRun(subjects, plan, stage, chosen, instruments, notify).results()


@dataclass(frozen=True)
class _Participants:
    """The variants that are measured in a stage, and one note for each that is not."""

    variants: list[Variant]
    notes: list[str]


def _choose_participants(subjects: Subjects, plan: BenchmarkPlan, stage: Stage) -> _Participants:
    """Choose the variants of a stage. Raises `ConfigError` if there are none."""
    baselines, notes = choose_baselines(subjects, plan.compared, stage.kinds[0], stage.prior, stage.slots)
    variants = baselines if plan.only_baselines else [*subjects.engines, *baselines]
    if plan.mapped:
        mapped = subjects.mapped_engines(stage.graph) if stage.graph.states else []
        variants = [*variants, *mapped]
        if not mapped:
            notes.append("no engine was measured with mapped weights: only large float weights of a prior are mapped")
    if not variants:
        raise ConfigError(
            f"no variant is left to measure in the workload {stage.kinds[0]}: {'; '.join(notes)}. Choose other "
            "baselines or workloads."
        )
    return _Participants(variants, notes)


@dataclass(frozen=True)
class _OpenVariant:
    """A variant and what is open of it for a stage."""

    variant: Variant
    threads: int
    opened: object  # what `Stage.open` returned
    load_seconds: float | None  # `None` if it uses weights that another variant had loaded


@dataclass(frozen=True)
class _StepTraffic:
    """The bytes that a step must move with no slot (the weights alone), with one slot, and with all slots."""

    weights: int
    one_slot: int
    all_slots: int

    @property
    def probe_size(self) -> int:
        """The bytes to read in order to measure the bandwidth: as many as a step moves, up to `LARGE_READ`."""
        return min(self.all_slots, LARGE_READ)

    def limit(self, bandwidths: Sequence[float]) -> MemoryLimit:
        """Return the memory limit, given the bytes per second that were measured after each round."""
        median = statistics.median(bandwidths)
        return MemoryLimit(self.weights, self.one_slot - self.weights, self.all_slots, median, tuple(bandwidths))


@dataclass(frozen=True)
class _StageRun:
    """The run of one stage. Everything that it opens is released when the generator `results` ends."""

    subjects: Subjects
    plan: BenchmarkPlan
    stage: Stage
    participants: _Participants
    instruments: Instruments
    notify: Listener

    def results(self) -> Iterator[WorkloadResult]:
        """Yield one result per workload of the stage; only the first one has load times."""
        variants = [self._open(variant) for variant in self.participants.variants]
        for workload, make_task in self.stage.tasks:
            reasons = {one.variant.backend: one.variant.reason_to_leave_out(workload.kind) for one in variants}
            measured = [one for one in variants if not reasons[one.variant.backend]]
            skipped = (f"{backend} was not measured: {reason}" for backend, reason in reasons.items() if reason)
            notes = (*self.participants.notes, *skipped)
            if measured:
                yield self._measure(workload, measured, [make_task(one.opened) for one in measured], notes)
            else:
                self.notify(f"{workload.kind}: {'; '.join(notes)}")
            variants = [replace(one, load_seconds=None) for one in variants]

    def _open(self, variant: Variant) -> _OpenVariant:
        self.notify(f"opening {variant.backend}, {variant.weight_format} weights")
        graph = self.stage.graph
        threads = self.plan.threads or self.subjects.threads(variant, graph)
        shares_weights = not variant.is_engine and self.subjects.has_loaded(graph.model_level)
        begun = self.instruments.clock()
        opened = self.stage.open(self.subjects.open(variant, threads))
        seconds = self.instruments.clock() - begun
        return _OpenVariant(variant, threads, opened, None if shares_weights else seconds)

    def _measure(
        self, workload: Workload, variants: Sequence[_OpenVariant], tasks: Sequence[Task], notes: tuple[str, ...]
    ) -> WorkloadResult:
        """Time the tasks in turn. The notes on the workload are stored with its first variant."""
        traffic = [self._step_traffic(workload, one.variant) for one in variants]
        bandwidths: dict[int, list[float]] = {step.probe_size: [] for step in traffic if step}

        def probe() -> None:
            for size, found in bandwidths.items():
                found.append(self.instruments.probe(size))

        def notify(text: str) -> None:
            self.notify(f"{workload.kind}, {text}")

        timings = time_in_turns(tasks, self.plan.rounds, notify, self.instruments.clock, probe)
        limits = [None if step is None else step.limit(bandwidths[step.probe_size]) for step in traffic]
        results = [self._result(workload, *one) for one in zip(variants, timings, limits, strict=True)]
        results[0] = replace(results[0], notes=notes)
        return WorkloadResult(workload, tuple(results))

    def _result(
        self, workload: Workload, opened: _OpenVariant, timing: Timing, limit: MemoryLimit | None
    ) -> VariantResult:
        variant = opened.variant
        units = workload.units_per_pass * timing.passes
        return VariantResult(
            backend=variant.backend,
            precision=str(variant.precision),
            weights=variant.weight_format,
            threads=opened.threads if self.plan.device == Provider.CPU else None,
            units_per_second=tuple(units / seconds for seconds in timing.rounds),
            latency=Latency.of(timing.calls),
            load_seconds=opened.load_seconds,
            first_seconds=timing.first,
            peak_memory_bytes=self._peak_memory(workload, opened) if self.plan.memory else None,
            limit=limit,
            calls_per_round=timing.passes * timing.calls_per_pass,
        )

    def _step_traffic(self, workload: Workload, variant: Variant) -> _StepTraffic | None:
        """Return the bytes that a step of this variant must move; `None` if the workload is no step."""
        if workload.kind is not WorkloadKind.STEP:
            return None
        sizes = (self.subjects.step_bytes(variant, workload.level, slots) for slots in (0, 1, workload.slots))
        return _StepTraffic(*sizes)

    def _peak_memory(self, workload: Workload, opened: _OpenVariant) -> int:
        """Return the peak memory in bytes of a process that opens only this variant and runs the workload once."""
        self.notify(f"{workload.kind}, memory of {opened.variant.backend}")
        variant, plan = opened.variant, self.plan
        checkpoint = None if variant.checkpoint is None else str(variant.checkpoint)
        return self.instruments.peak_memory(
            MemoryRequest(
                backend=variant.backend,
                bundle=str(variant.bundle),
                checkpoint=checkpoint,
                kind=workload.kind,
                level=workload.level,
                slots=workload.slots,
                threads=opened.threads,
                steps=plan.steps,
                seconds=plan.seconds,
                position=plan.position,
                mapped=variant.mapped,
                songs=plan.songs,
            )
        )
