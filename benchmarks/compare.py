"""Comparison of two benchmark runs: which results got faster or slower by more than chance explains.

Another program on the machine slows engines and baselines of a run alike. Therefore the speed of a variant is divided
by that of a baseline that both runs measured, round by round, and these ratios are compared. The change of the baseline
itself is reported separately: it is a change of the machine rather than of an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from itertools import count
from typing import Any

from jukebox_deploy.benchmarks.drawing.words import describe_gpu
from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.rank_test import holm, least_p, rank_sum_p
from jukebox_deploy.benchmarks.results import BenchmarkRun, Spread, VariantResult, Workload
from jukebox_deploy.benchmarks.workload_groups import BASELINES, same_work
from jukebox_deploy.quantities import byte_size

THRESHOLD = 0.03
"""Default of the relative difference that two medians must exceed to count as a change."""

CHANCE = 0.05
"""Significance level: the probability that a comparison of two equal programs reports any change."""

_BANDWIDTH_TOLERANCE = 0.1  # relative difference of bandwidths up to which there is no warning


class Verdict(StrEnum):
    """The conclusion about one variant of one workload."""

    FASTER = "faster"
    SLOWER = "slower"
    UNCLEAR = "no clear change"


@dataclass(frozen=True)
class MeasuredVariant:
    """A variant of a workload that only one of the runs measured."""

    workload: Workload
    variant: str
    threads: int | None


@dataclass(frozen=True)
class Change:
    """One variant of one workload in both runs."""

    workload: Workload
    variant: str
    threads: tuple[int | None, int | None]
    baseline: str | None  # `before` and `after` are ratios over its speed; `None`: they are in units per second
    before: Spread
    after: Spread
    p: float  # p-value of the rank test, corrected for the number of changes
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """The median after, divided by the median before."""
        return self.after.median / self.before.median


@dataclass(frozen=True)
class Drift:
    """The change of a workload's baseline, which tells more about the machine than about engines."""

    workload: Workload
    baseline: str
    before: Spread  # units per second
    after: Spread
    shared: bool  # whether all variants got faster, or all slower, by more than the threshold

    @property
    def ratio(self) -> float:
        """The median after, divided by the median before."""
        return self.after.median / self.before.median


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two runs."""

    changes: tuple[Change, ...]
    drifts: tuple[Drift, ...]
    only_before: tuple[MeasuredVariant, ...]
    only_after: tuple[MeasuredVariant, ...]
    warnings: tuple[str, ...]  # how the machines differ, as sentences without a full stop
    remarks: tuple[str, ...]  # limits of the comparison, as sentences without a full stop
    conclusive: bool  # whether there are enough rounds for any change to be significant

    def with_verdict(self, verdict: Verdict) -> tuple[Change, ...]:
        """Return the changes with this verdict."""
        return tuple(change for change in self.changes if change.verdict is verdict)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain JSON data."""
        rated: dict[str, tuple[Change, ...] | tuple[Drift, ...]] = {"changes": self.changes, "drifts": self.drifts}
        return asdict(self) | {
            name: [asdict(one) | {"ratio": one.ratio} for one in ones] for name, ones in rated.items()
        }


@dataclass(frozen=True)
class _Pair:
    """A variant in both runs, and the values of its rounds that are compared."""

    workload: Workload
    variants: tuple[VariantResult, VariantResult]
    baseline: str | None
    before: tuple[float, ...]  # ratios over the baseline, or units per second without one
    after: tuple[float, ...]

    def judge(self, p: float, threshold: float) -> Change:
        """Return the change: a clear one if the medians differ by more than the threshold and `p` is significant."""
        first, second = self.variants
        before, after = Spread.of(self.before), Spread.of(self.after)
        slow, fast = sorted((before.median, after.median))
        verdict = Verdict.UNCLEAR
        if p <= CHANCE and fast > (1.0 + threshold) * slow:
            verdict = Verdict.FASTER if after.median > before.median else Verdict.SLOWER
        threads = (first.threads, second.threads)
        return Change(self.workload, first.name, threads, self.baseline, before, after, p, verdict)


def compare(before: BenchmarkRun, after: BenchmarkRun, threshold: float = THRESHOLD) -> Comparison:
    """Compare all variants that two runs have in common.

    A variant is faster or slower if the medians differ by more than `threshold` (0.03 stands for 3 %), and a rank test
    of the rounds, corrected for the number of variants, is significant. A baseline that others are divided by is not
    judged: its change is returned as a drift.
    """
    pairs: list[_Pair] = []
    drifts: list[Drift] = []
    for first, second in _common_work(before, after):
        work_pairs, drift = _compare_work(first, second, threshold)
        pairs += work_pairs
        drifts += [drift] if drift else []
    corrected = holm([rank_sum_p(pair.before, pair.after) for pair in pairs])
    changes = [pair.judge(p, threshold) for pair, p in zip(pairs, corrected, strict=True)]
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
    """Yield how two machines differ in what may change the speed, as sentences without a full stop."""
    for field in fields(Machine):
        first, second = getattr(before, field.name), getattr(after, field.name)
        if first != second and field.name not in ("packages", "read_bytes_per_second"):
            name, text = _FIELD_TEXTS.get(field.name, (field.name.replace("_", " "), str))
            yield f"{name}: {text(first)} before, {text(second)} after"
    for name in sorted(before.packages.keys() | after.packages.keys()):
        first, second = (machine.packages.get(name, "none") for machine in (before, after))
        if first != second:
            yield f"{name}: {first} before, {second} after"
    first, second = before.read_bytes_per_second, after.read_bytes_per_second
    if abs(second - first) > _BANDWIDTH_TOLERANCE * first:
        yield f"memory read at {byte_size(first)}/s before, at {byte_size(second)}/s after"


_FIELD_TEXTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "memory_bytes": ("memory", lambda size: "unknown" if size is None else f"{size:,} bytes"),
    "gpu": ("GPU that did the work", lambda name: name or "none"),
    "gpus": ("GPUs", lambda gpus: "; ".join(map(describe_gpu, gpus)) or "none"),
}
"""Names and formats of those fields of `Machine` that need other ones than the field's name and `str`."""

_Common = list[tuple[VariantResult, VariantResult]]


def _common_work(before: BenchmarkRun, after: BenchmarkRun) -> Iterator[tuple[Workload, _Common]]:
    """Yield each pair of results with the same work, as the workload and the variants that both have."""
    for first in before.results:
        for second in after.results:
            found = [(v, _counterpart(first.workload, v, before, after)) for v in first.variants]
            pairs = [(v, other) for v, other in found if other is not None]
            common = [(v, other) for v, other in pairs if any(other is own for own in second.variants)]
            if common:
                yield first.workload, common


def _compare_work(workload: Workload, common: _Common, threshold: float) -> tuple[list[_Pair], Drift | None]:
    """Return the pairs to compare, and the drift of the baseline.

    Values are ratios over the first of `BASELINES` that both runs measured. Without such a baseline, or without any
    other variant, they are speeds.
    """
    over = next((pair for backend in BASELINES for pair in common if pair[0].backend == backend), None)
    if over is None or len(common) == 1:
        return [_Pair(workload, (a, b), None, a.units_per_second, b.units_per_second) for a, b in common], None
    others = [pair for pair in common if pair is not over]
    ratios = [[variant.ratios_over(base) for variant, base in zip(pair, over, strict=True)] for pair in others]
    pairs = [
        _Pair(workload, pair, over[0].name, before, after) for pair, (before, after) in zip(others, ratios, strict=True)
    ]
    before, after = (variant.speed for variant in over)
    return pairs, Drift(workload, over[0].name, before, after, _moved_alike(common, threshold))


def _moved_alike(common: _Common, threshold: float) -> bool:
    """Return whether all variants got faster, or all slower, by more than the threshold."""
    ratios = [after.speed.median / before.speed.median for before, after in common]
    return min(ratios) > 1.0 + threshold or max(ratios) < 1.0 / (1.0 + threshold)


def _too_few_rounds(pairs: Sequence[_Pair]) -> list[str]:
    """Return a remark if no rounds could be significant for so many pairs, otherwise nothing."""
    if not pairs or any(least_p(len(p.before), len(p.after)) * len(pairs) <= CHANCE for p in pairs):
        return []
    needed = next(rounds for rounds in count(1) if least_p(rounds, rounds) * len(pairs) <= CHANCE)
    found = ", ".join(sorted({f"{len(pair.before)} and {len(pair.after)}" for pair in pairs}))
    return [
        f"too few rounds to distinguish changes of {len(pairs)} results from chance: the runs have {found} rounds; "
        f"measure both again with --rounds {needed} or more"
    ]


def _incomplete(before: BenchmarkRun, after: BenchmarkRun) -> Iterator[str]:
    """Yield a remark for each run that was stopped, named as in the command `bench compare A B`."""
    for name, run in (("A", before), ("B", after)):
        if not run.complete:
            yield f"{name} was stopped before its end, so it has only the workloads that were finished by then"


def _unpaired(run: BenchmarkRun, other: BenchmarkRun) -> Iterator[MeasuredVariant]:
    """Yield what a run measured and the other run did not."""
    for result in run.results:
        for variant in result.variants:
            if _counterpart(result.workload, variant, run, other) is None:
                yield MeasuredVariant(result.workload, variant.name, variant.threads)


def _counterpart(
    workload: Workload, variant: VariantResult, run: BenchmarkRun, other: BenchmarkRun
) -> VariantResult | None:
    """Return the variant of the other run with the same work, name and number of threads, or `None`.

    If both runs have a variant of this name only once, its number of threads does not matter.
    """
    own, others = (_variants_named(side, workload, variant.name) for side in (run, other))
    only_one = others[0] if len(own) == len(others) == 1 else None
    return next((found for found in others if found.threads == variant.threads), only_one)


def _variants_named(run: BenchmarkRun, workload: Workload, name: str) -> list[VariantResult]:
    """Return all variants of this name in results of the same work."""
    results = [result for result in run.results if same_work(result.workload, workload)]
    return [variant for result in results for variant in result.variants if variant.name == name]
