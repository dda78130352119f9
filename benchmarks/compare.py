"""What got faster or slower between two runs, beyond chance.

Another program slows the engines of a run as much as the baseline beside them. So what is compared is an engine's speed
over that of a baseline of both runs, round by round, and the baseline's own change is told apart: as the machine's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from itertools import count
from typing import Any

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.rank_test import holm, least_p, rank_sum_p
from jukebox_deploy.benchmarks.results import BenchmarkRun, Spread, VariantResult, Workload
from jukebox_deploy.benchmarks.workload_groups import BASELINES, same_work
from jukebox_deploy.quantities import byte_size

THRESHOLD = 0.03
"""Medians that differ by less count as no change."""

CHANCE = 0.05
"""How likely a comparison may find any change where there is none."""

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
    """One variant of one workload in both runs."""

    workload: Workload
    variant: str
    threads: tuple[int | None, int | None]
    baseline: str | None  # over whose rounds the speeds are taken; `None`: in units per second
    before: Spread
    after: Spread
    p: float  # of the rank test, as it counts among all changes
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """How many times as fast as before, by the medians."""
        return self.after.median / self.before.median


@dataclass(frozen=True)
class Drift:
    """How much faster a workload's baseline ran, which says more about the machine than about engines."""

    workload: Workload
    baseline: str
    before: Spread  # units per second
    after: Spread
    shared: bool  # whether all variants moved the same way

    @property
    def ratio(self) -> float:
        """How many times as fast as before, by the medians."""
        return self.after.median / self.before.median


@dataclass(frozen=True)
class Comparison:
    """All that two runs say about each other."""

    changes: tuple[Change, ...]
    drifts: tuple[Drift, ...]
    only_before: tuple[Measured, ...]
    only_after: tuple[Measured, ...]
    warnings: tuple[str, ...]  # how the machines differ
    remarks: tuple[str, ...]  # what the comparison cannot tell, as sentences without a full stop
    conclusive: bool  # whether any change could be told from chance

    def with_verdict(self, verdict: Verdict) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(change for change in self.changes if change.verdict is verdict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rated: dict[str, tuple[Change, ...] | tuple[Drift, ...]] = {"changes": self.changes, "drifts": self.drifts}
        return asdict(self) | {
            name: [asdict(one) | {"ratio": one.ratio} for one in ones] for name, ones in rated.items()
        }


@dataclass(frozen=True)
class _Pair:
    """A variant in both runs, and what of its rounds is compared."""

    workload: Workload
    variants: tuple[VariantResult, VariantResult]
    baseline: str | None
    before: tuple[float, ...]
    after: tuple[float, ...]

    def judged(self, p: float, threshold: float) -> Change:
        """With the verdict: medians that differ by more than the threshold, and ranks by more than chance."""
        first, second = self.variants
        before, after = Spread.of(self.before), Spread.of(self.after)
        slow, fast = sorted((before.median, after.median))
        verdict = Verdict.UNCLEAR
        if p <= CHANCE and fast > (1.0 + threshold) * slow:
            verdict = Verdict.FASTER if after.median > before.median else Verdict.SLOWER
        threads = (first.threads, second.threads)
        return Change(self.workload, first.name, threads, self.baseline, before, after, p, verdict)


def compare(before: BenchmarkRun, after: BenchmarkRun, threshold: float = THRESHOLD) -> Comparison:
    """Pair the variants of two runs and judge each pair.

    Faster or slower: the medians differ by more than `threshold`, and so do the ranks of the rounds in a test that is
    corrected for the number of pairs. A baseline that others are taken over is not judged, but told as a drift.
    """
    pairs: list[_Pair] = []
    drifts: list[Drift] = []
    for first, second in _common_work(before, after):
        own, drift = _compare_work(first, second)
        pairs += own
        drifts += [drift] if drift else []
    corrected = holm([rank_sum_p(pair.before, pair.after) for pair in pairs])
    changes = [pair.judged(p, threshold) for pair, p in zip(pairs, corrected, strict=True)]
    too_few = _too_few_rounds(pairs)
    return Comparison(
        tuple(changes),
        tuple(drifts),
        tuple(_unpaired(before, after)),
        tuple(_unpaired(after, before)),
        tuple(machine_differences(before.machine, after.machine)),
        (*_incomplete(before, after), *too_few),
        not too_few,
    )


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
        yield f"memory read at {byte_size(first)}/s before, at {byte_size(second)}/s after"


_Common = list[tuple[VariantResult, VariantResult]]


def _common_work(before: BenchmarkRun, after: BenchmarkRun) -> Iterator[tuple[Workload, _Common]]:
    """Workloads of both runs, with the variants that they have in common."""
    for first in before.results:
        for second in after.results:
            partners = [(v, _partner(first.workload, v, before, after)) for v in first.variants]
            common = [(v, partner) for v, partner in partners if any(partner is own for own in second.variants)]
            if common:
                yield first.workload, [(v, partner) for v, partner in common if partner is not None]


def _compare_work(workload: Workload, common: _Common) -> tuple[list[_Pair], Drift | None]:
    """Ratios over the first baseline that both runs have; speeds where there is none, or nothing else."""
    over = next((pair for backend in BASELINES for pair in common if pair[0].backend == backend), None)
    if over is None or len(common) == 1:
        return [_Pair(workload, (a, b), None, a.units_per_second, b.units_per_second) for a, b in common], None
    others = [pair for pair in common if pair is not over]
    ratios = [[variant.ratios_over(base) for variant, base in zip(pair, over, strict=True)] for pair in others]
    pairs = [
        _Pair(workload, pair, over[0].name, before, after) for pair, (before, after) in zip(others, ratios, strict=True)
    ]
    before, after = (variant.speed for variant in over)
    return pairs, Drift(workload, over[0].name, before, after, _moved_alike(common))


def _moved_alike(common: _Common) -> bool:
    """Whether all variants got faster, or all slower, by more than the threshold."""
    ratios = [after.speed.median / before.speed.median for before, after in common]
    return min(ratios) > 1.0 + THRESHOLD or max(ratios) < 1.0 / (1.0 + THRESHOLD)


def _too_few_rounds(pairs: Sequence[_Pair]) -> list[str]:
    """A sentence if nothing that the rounds show could be told from chance, among so many pairs."""
    if not pairs or any(least_p(len(p.before), len(p.after)) * len(pairs) <= CHANCE for p in pairs):
        return []
    needed = next(rounds for rounds in count(1) if least_p(rounds, rounds) * len(pairs) <= CHANCE)
    found = ", ".join(sorted({f"{len(pair.before)} and {len(pair.after)}" for pair in pairs}))
    return [
        f"too few rounds to tell {len(pairs)} results from chance, found {found}; "
        f"measure both again with --rounds {needed} or more"
    ]


def _incomplete(before: BenchmarkRun, after: BenchmarkRun) -> Iterator[str]:
    for name, run in (("A", before), ("B", after)):
        if not run.complete:
            yield f"{name} was stopped before its end and has only the workloads that were finished"


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
