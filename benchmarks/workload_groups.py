"""Grouping of results: the same work in several runs, sweeps along one field, and one headline result per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from jukebox_deploy.benchmarks.results import (
    Backend,
    Spread,
    VariantResult,
    Workload,
    WorkloadKind,
    WorkloadResult,
)

BASELINES = (
    Backend.EAGER,
    Backend.EAGER_STATIC,
    Backend.EAGER_RECORDED,
    Backend.TORCH_COMPILE,
    Backend.HUGGING_FACE,
)
"""The backends that engines are compared with, in order of preference; first the one that works as the original."""

_AUDIO = (WorkloadKind.ENCODE, WorkloadKind.DECODE, WorkloadKind.SONG)


class Axis(StrEnum):
    """A field of a workload that a sweep varies while the other fields stay the same."""

    SLOTS = "slots"
    POSITION = "position"
    WIDTH = "width"
    DEPTH = "depth"
    CONTEXT = "context"
    LENGTH = "length"
    SONGS = "songs"


SIZES = (Axis.WIDTH, Axis.DEPTH, Axis.CONTEXT)
"""Axes along which each value is another model, with a name of its own."""

_Identity = dict[str, object]
_Key = tuple[tuple[str, object], ...]


def name_along(axis: Axis, model: str, value: int) -> str:
    """Return the name of a model that differs from another in one size: `mid-depth-12`."""
    return f"{model}-{axis}-{value}"


def base_model(workload: Workload, axis: Axis) -> str:
    """Return the name of the model that a model along an axis was made from: `mid` for `mid-depth-12` and for `mid`."""
    value = axis_value(workload, axis)
    return workload.model if value is None else workload.model.removesuffix(name_along(axis, "", int(value)))


@dataclass(frozen=True)
class Sweep:
    """Results whose workloads differ in one field only, in ascending order of that field."""

    axis: Axis
    results: tuple[WorkloadResult, ...]  # two or more
    runs: tuple[str, ...] = ()  # names of the runs that the results come from; one, unless no run has all values

    @property
    def values(self) -> list[float]:
        """The values of the field, one per result."""
        return [axis_value(result.workload, self.axis) or 0.0 for result in self.results]

    @property
    def variants(self) -> list[VariantResult]:
        """The first variant of each name that was measured for at least two values, in the order of the results."""
        seen = [variant for result in self.results for variant in result.variants]
        names = [variant.name for variant in seen]
        return [v for i, v in enumerate(seen) if v.name not in names[:i] and len(self.costs(v.name)) > 1]

    def costs(self, variant: str) -> list[tuple[float, Spread]]:
        """Return the value of the field and the `cost` in seconds, for each result that has the variant."""
        measured = [(x, r.workload, _variant_named(r, variant)) for x, r in zip(self.values, self.results, strict=True)]
        return [(x, cost(workload, found)) for x, workload, found in measured if found is not None]

    def ends(self, variant: str) -> tuple[float, float]:
        """Return the first and the last value that the variant was measured for."""
        (first, _), *_, (last, _) = self.costs(variant)
        return first, last

    def is_whole(self, variant: str) -> bool:
        """Return whether the variant was measured for both the first and the last value of the sweep."""
        return self.ends(variant) == (self.values[0], self.values[-1])

    def growth(self, variant: str) -> float:
        """Return the median cost at the variant's last value, divided by that at its first value."""
        (_, first), *_, (_, last) = self.costs(variant)
        return last.median / first.median

    def slope(self, variant: str) -> float:
        """Return the seconds per unit of the field: the slope of the least-squares line through the median costs."""
        costs = self.costs(variant)
        slope, _ = np.polyfit([value for value, _ in costs], [cost.median for _, cost in costs], 1)
        return float(slope)


def _variant_named(result: WorkloadResult, name: str) -> VariantResult | None:
    return next((v for v in result.variants if v.name == name), None)


def cost(workload: Workload, variant: VariantResult) -> Spread:
    """Return the cost in seconds, over the rounds, of what all slots do once.

    That is a step, one prefilled position per slot, a window, encoding or decoding the audio, or sampling the songs.
    """
    units = workload.songs_or_slots * (axis_value(workload, Axis.LENGTH) or 1.0)
    return Spread.of([units / speed for speed in variant.units_per_second])


def axis_value(workload: Workload, axis: Axis) -> float | None:
    """Return the value of an axis for a workload, or `None` if the workload has none.

    The length is in seconds of audio, per song or per slot.
    """
    value: float | None
    if axis is Axis.LENGTH:
        value = workload.units_per_pass / workload.songs_or_slots if workload.kind in _AUDIO else None
    else:
        value = getattr(workload, axis)
    return value if value or axis is Axis.POSITION else None


def same_work(first: Workload, second: Workload) -> bool:
    """Return whether two workloads are the same work, so that speeds can be compared; steps per pass may differ."""
    return _identity(first) == _identity(second)


def _identity(workload: Workload) -> _Identity:
    """Return the fields that two workloads must have in common to be the same work."""
    fields: _Identity = {str(axis): axis_value(workload, axis) for axis in Axis}
    return {"kind": workload.kind, "model": workload.model, "level": workload.level, **fields}


def _identity_without(workload: Workload, axis: Axis) -> _Identity:
    """Return the fields that the workloads of a sweep along an axis have in common."""
    rest = _identity(workload)
    if axis in SIZES:
        rest["model"] = base_model(workload, axis)
    # Positions are compared as shares of the context.
    if axis is Axis.CONTEXT and workload.position is not None and workload.context:
        rest[Axis.POSITION] = round(workload.position / workload.context, 2)
    del rest[axis]
    return rest


def sweeps(runs: Mapping[str, Sequence[WorkloadResult]]) -> list[Sweep]:
    """Return all sweeps among the results of several runs, in the order of `Axis`.

    A sweep takes its results from the run with the most values, of several such runs the last one. Values that this run
    lacks come from the other runs in the same order. Of several results of one run for one value, `distinct` chooses.
    """
    found = []
    for axis in Axis:
        groups: dict[_Key, dict[str, dict[float, WorkloadResult]]] = {}
        for name, results in runs.items():
            for result in distinct(results):
                value = axis_value(result.workload, axis)
                if value is not None:
                    key = tuple(_identity_without(result.workload, axis).items())
                    groups.setdefault(key, {}).setdefault(name, {})[value] = result
        joined = [_join_runs(axis, group) for group in groups.values()]
        found += [sweep for sweep in joined if len(sweep.results) > 1 and sweep.variants]
    return found


def _join_runs(axis: Axis, group: Mapping[str, dict[float, WorkloadResult]]) -> Sweep:
    """Make one sweep of the results of each run, by value."""
    chosen: dict[float, tuple[str, WorkloadResult]] = {}
    for name, values in sorted(group.items(), key=lambda item: len(item[1])):  # later ones replace earlier ones
        chosen |= {value: (name, result) for value, result in values.items()}
    points = [chosen[value] for value in sorted(chosen)]
    used = {name for name, _ in points}
    return Sweep(axis, tuple(result for _, result in points), tuple(name for name in group if name in used))


def distinct(results: Sequence[WorkloadResult]) -> list[WorkloadResult]:
    """Return one result per work: the one with the most variants, of several such results the last one."""
    chosen: list[WorkloadResult] = []
    for result in results:
        place = next((i for i, known in enumerate(chosen) if same_work(known.workload, result.workload)), None)
        if place is None:
            chosen.append(result)
        elif len(result.variants) >= len(chosen[place].variants):
            chosen[place] = result
    return chosen


def headlines(results: Sequence[WorkloadResult]) -> list[WorkloadResult]:
    """Return one result for each group of results that are connected by sweeps: the one with the most variants.

    Of several such results of a group, the first one is returned.
    """
    group = list(range(len(results)))
    for sweep in sweeps({"": results}):
        joined = {group[results.index(result)] for result in sweep.results}
        group = [min(joined) if number in joined else number for number in group]
    members = [[r for r, own in zip(results, group, strict=True) if own == number] for number in sorted(set(group))]
    return [max(member, key=lambda r: len(r.variants)) for member in members]


def is_engine(variant: VariantResult) -> bool:
    """Return whether a variant is an engine and not a baseline."""
    return variant.backend not in BASELINES


def engines_or_all(variants: Sequence[VariantResult]) -> list[VariantResult]:
    """Return the engines among the variants, or all variants if there are only baselines."""
    return [variant for variant in variants if is_engine(variant)] or list(variants)


def baseline_of(result: WorkloadResult, variant: VariantResult, backend: Backend) -> VariantResult | None:
    """Return the result of a backend to compare a variant with, or `None`.

    One of the same precision is preferred, and the variant itself is never returned.
    """
    found = [v for v in result.variants if v.backend == backend and v is not variant]
    return next((v for v in found if v.precision == variant.precision), found[0] if found else None)


def ratio_over(result: WorkloadResult, variant: VariantResult, backend: Backend) -> Spread | None:
    """Return the ratios of a variant over a baseline; `None` for the baseline itself, and if it was not measured."""
    baseline = baseline_of(result, variant, backend) if variant.backend != backend else None
    return None if baseline is None else variant.ratio_over(baseline)


def share_of_limit(workload: Workload, variant: VariantResult) -> float | None:
    """Return the speed as a share of the memory limit; `None` if the variant has no limit.

    It is the median of the rounds' shares. In older files, whose bandwidth was measured once, it is the share of the
    median speed.
    """
    limit = variant.limit
    if limit is None:
        return None
    if len(limit.rounds) != len(variant.units_per_second):
        return variant.speed.median / limit.units_per_second(workload.slots)
    rounds = zip(variant.units_per_second, limit.rounds, strict=True)
    return float(np.median([speed * limit.step_bytes / (workload.slots * read) for speed, read in rounds]))
