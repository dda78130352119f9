"""What got faster or slower between two runs, beyond the spread of their rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import BenchmarkRun, Spread, VariantResult, Workload, WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import same_work

THRESHOLD = 0.03
"""Medians that differ by less count as no change."""

_BANDWIDTH_TOLERANCE = 0.1  # probes that differ by less get no warning


class Verdict(StrEnum):
    """What a difference amounts to."""

    FASTER = "faster"
    SLOWER = "slower"
    UNCLEAR = "no clear change"


@dataclass(frozen=True)
class Measured:
    """A variant of a workload."""

    workload: Workload
    variant: str
    threads: int | None


@dataclass(frozen=True)
class Change:
    """One variant of one workload in both runs. Speeds are in units per second."""

    workload: Workload
    variant: str
    threads: tuple[int | None, int | None]
    before: Spread
    after: Spread
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """How many times as fast as before, by the medians."""
        return self.after.median / self.before.median


@dataclass(frozen=True)
class Comparison:
    """All that two runs say about each other."""

    changes: tuple[Change, ...]
    only_before: tuple[Measured, ...]
    only_after: tuple[Measured, ...]
    warnings: tuple[str, ...]  # how the machines differ

    def with_verdict(self, verdict: Verdict) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.verdict is verdict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"changes": [asdict(change) | {"ratio": change.ratio} for change in self.changes]}


def compare(before: BenchmarkRun, after: BenchmarkRun, threshold: float = THRESHOLD) -> Comparison:
    """Pair the variants of two runs.

    Faster or slower: the middle halves of the rounds do not overlap, and the medians differ by more than `threshold`.
    """
    changes = [
        Change(
            result.workload,
            first.name,
            (first.threads, second.threads),
            first.speed,
            second.speed,
            verdict_of(first.speed, second.speed, threshold),
        )
        for result, first, second in _pairs(before, after)
    ]
    return Comparison(
        tuple(changes),
        tuple(_unpaired(before, after)),
        tuple(_unpaired(after, before)),
        tuple(machine_differences(before.machine, after.machine)),
    )


def verdict_of(before: Spread, after: Spread, threshold: float = THRESHOLD) -> Verdict:
    """Of two speeds."""
    slow, fast = sorted((before, after), key=lambda speed: speed.median)
    if fast.median <= (1.0 + threshold) * slow.median or fast.lower_quartile <= slow.upper_quartile:
        return Verdict.UNCLEAR
    return Verdict.FASTER if fast is after else Verdict.SLOWER


def machine_differences(before: Machine, after: Machine) -> Iterator[str]:
    """What else than the code may have changed the speed, as sentences without a full stop."""
    for field in fields(Machine):
        first, second = getattr(before, field.name), getattr(after, field.name)
        if first != second and field.name not in ("packages", "read_bytes_per_second"):
            yield f"{field.name.replace('_', ' ')}: {first} before, {second} after"
    for name in sorted(before.packages.keys() | after.packages.keys()):
        first, second = (machine.packages.get(name, "none") for machine in (before, after))
        if first != second:
            yield f"{name}: {first} before, {second} after"
    first, second = before.read_bytes_per_second, after.read_bytes_per_second
    if abs(second - first) > _BANDWIDTH_TOLERANCE * first:
        yield f"memory read at {first / 1e9:.3g} GB/s before, at {second / 1e9:.3g} GB/s after"


def _pairs(before: BenchmarkRun, after: BenchmarkRun) -> Iterator[tuple[WorkloadResult, VariantResult, VariantResult]]:
    for result in before.results:
        for variant in result.variants:
            partner = _partner(result.workload, variant, before, after)
            if partner is not None:
                yield result, variant, partner


def _unpaired(run: BenchmarkRun, other: BenchmarkRun) -> Iterator[Measured]:
    for result in run.results:
        for variant in result.variants:
            if _partner(result.workload, variant, run, other) is None:
                yield Measured(result.workload, variant.name, variant.threads)


def _partner(
    workload: Workload, variant: VariantResult, run: BenchmarkRun, other: BenchmarkRun
) -> VariantResult | None:
    """The same work by the same variant: with as many threads, or if both runs have it once, with any number."""
    here, there = (_named(side, workload, variant.name) for side in (run, other))
    alone = there[0] if len(here) == len(there) == 1 else None
    return next((found for found in there if found.threads == variant.threads), alone)


def _named(run: BenchmarkRun, workload: Workload, name: str) -> list[VariantResult]:
    results = [result for result in run.results if same_work(result.workload, workload)]
    return [variant for result in results for variant in result.variants if variant.name == name]
