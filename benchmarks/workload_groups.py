"""Which results belong together: the same work in two runs, sweeps of one field, and one to stand for a group."""

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
"""What engines are held against, the original's way first."""

_AUDIO = (WorkloadKind.ENCODE, WorkloadKind.DECODE, WorkloadKind.SONG)


class Axis(StrEnum):
    """A field of a workload that others can be equal but for."""

    SLOTS = "slots"
    POSITION = "position"
    WIDTH = "width"
    DEPTH = "depth"
    CONTEXT = "context"
    LENGTH = "length"
    SONGS = "songs"


SIZES = (Axis.WIDTH, Axis.DEPTH, Axis.CONTEXT)
"""Axes along which models have different names."""

_Identity = dict[str, object]
_Key = tuple[tuple[str, object], ...]


def name_along(axis: Axis, model: str, value: int) -> str:
    """What a model is called that differs from another in one size: `mid-depth-12`."""
    return f"{model}-{axis}-{value}"


def base_model(workload: Workload, axis: Axis) -> str:
    """What a model along an axis is a variation of: `mid` for `mid-depth-12` along the depth, and for `mid`."""
    value = axis_value(workload, axis)
    return workload.model if value is None else workload.model.removesuffix(name_along(axis, "", int(value)))


@dataclass(frozen=True)
class Sweep:
    """Workloads that differ in one field only, ascending in it."""

    axis: Axis
    results: tuple[WorkloadResult, ...]  # two or more
    runs: tuple[str, ...] = ()  # that the results are of, one unless no run has them all

    @property
    def values(self) -> list[float]:
        """The field's values."""
        return [axis_value(result.workload, self.axis) or 0.0 for result in self.results]

    @property
    def variants(self) -> list[VariantResult]:
        """One of each name that was measured for at least two values, in the order of the first result with it."""
        seen = [variant for result in self.results for variant in result.variants]
        names = [variant.name for variant in seen]
        return [v for i, v in enumerate(seen) if v.name not in names[:i] and len(self.costs(v.name)) > 1]

    def costs(self, variant: str) -> list[tuple[float, Spread]]:
        """The field's value and the seconds of the work (see `cost`), where the variant was measured."""
        measured = [(x, r.workload, _named(r, variant)) for x, r in zip(self.values, self.results, strict=True)]
        return [(x, cost(workload, found)) for x, workload, found in measured if found is not None]

    def ends(self, variant: str) -> tuple[float, float]:
        """The first and the last value that the variant was measured for."""
        (first, _), *_, (last, _) = self.costs(variant)
        return first, last

    def is_whole(self, variant: str) -> bool:
        """Whether the variant was measured from one end of the sweep to the other."""
        return self.ends(variant) == (self.values[0], self.values[-1])

    def growth(self, variant: str) -> float:
        """How many times the cost at the first of the variant's own ends that at the last is, by the medians."""
        (_, first), *_, (_, last) = self.costs(variant)
        return last.median / first.median

    def slope(self, variant: str) -> float:
        """Seconds that one more of the field costs: of the straight line that fits the medians best."""
        costs = self.costs(variant)
        slope, _ = np.polyfit([value for value, _ in costs], [cost.median for _, cost in costs], 1)
        return float(slope)


def _named(result: WorkloadResult, name: str) -> VariantResult | None:
    return next((v for v in result.variants if v.name == name), None)


def cost(workload: Workload, variant: VariantResult) -> Spread:
    """Seconds, round by round, of what all slots do once: a step, a prefilled position, a window, their audio."""
    units = workload.songs_or_slots * (axis_value(workload, Axis.LENGTH) or 1.0)
    return Spread.of([units / speed for speed in variant.units_per_second])


def axis_value(workload: Workload, axis: Axis) -> float | None:
    """A workload's place on an axis; the length is that of one song, in seconds of audio."""
    value: float | None
    if axis is Axis.LENGTH:
        value = workload.units_per_round / workload.songs_or_slots if workload.kind in _AUDIO else None
    else:
        value = getattr(workload, axis)
    return value if value or axis is Axis.POSITION else None


def same_work(first: Workload, second: Workload) -> bool:
    """Whether speeds of two runs can be compared: how many tokens a round has does not matter."""
    return _identity(first) == _identity(second)


def _identity(workload: Workload) -> _Identity:
    fields: _Identity = {str(axis): axis_value(workload, axis) for axis in Axis}
    return {"kind": workload.kind, "model": workload.model, "level": workload.level, **fields}


def _all_but(workload: Workload, axis: Axis) -> _Identity:
    """What is equal among the workloads of a sweep."""
    rest = _identity(workload)
    if axis in SIZES:
        rest["model"] = base_model(workload, axis)
    if axis is Axis.CONTEXT and workload.position is not None and workload.context:
        rest[Axis.POSITION] = round(workload.position / workload.context, 2)
    del rest[axis]
    return rest


def sweeps(runs: Mapping[str, Sequence[WorkloadResult]]) -> list[Sweep]:
    """All sweeps among the results of runs, by axis; of two results of one run with one value, as in `distinct`.

    A sweep is of one run, the one with the most values and among those the last. Values that this run lacks are added
    from the others, the last first.
    """
    found = []
    for axis in Axis:
        groups: dict[_Key, dict[str, dict[float, WorkloadResult]]] = {}
        for name, results in runs.items():
            for result in distinct(results):
                value = axis_value(result.workload, axis)
                if value is not None:
                    key = tuple(_all_but(result.workload, axis).items())
                    groups.setdefault(key, {}).setdefault(name, {})[value] = result
        joined = [_joined(axis, group) for group in groups.values()]
        found += [sweep for sweep in joined if len(sweep.results) > 1 and sweep.variants]
    return found


def _joined(axis: Axis, group: Mapping[str, dict[float, WorkloadResult]]) -> Sweep:
    """A sweep from the values of each run."""
    chosen: dict[float, tuple[str, WorkloadResult]] = {}
    for name, values in sorted(group.items(), key=lambda item: len(item[1])):  # what comes later wins
        chosen |= {value: (name, result) for value, result in values.items()}
    points = [chosen[value] for value in sorted(chosen)]
    used = {name for name, _ in points}
    return Sweep(axis, tuple(result for _, result in points), tuple(name for name in group if name in used))


def distinct(results: Sequence[WorkloadResult]) -> list[WorkloadResult]:
    """Of results of the same work, the one with the most variants, and among those the last."""
    chosen: list[WorkloadResult] = []
    for result in results:
        place = next((i for i, known in enumerate(chosen) if same_work(known.workload, result.workload)), None)
        if place is None:
            chosen.append(result)
        elif len(result.variants) >= len(chosen[place].variants):
            chosen[place] = result
    return chosen


def headlines(results: Sequence[WorkloadResult]) -> list[WorkloadResult]:
    """One result for each group that sweeps connect: the first with the most variants."""
    group = list(range(len(results)))
    for sweep in sweeps({"": results}):
        joined = {group[results.index(result)] for result in sweep.results}
        group = [min(joined) if number in joined else number for number in group]
    members = [[r for r, own in zip(results, group, strict=True) if own == number] for number in sorted(set(group))]
    return [max(member, key=lambda r: len(r.variants)) for member in members]


def is_engine(variant: VariantResult) -> bool:
    """Whether a variant is not there to be compared with."""
    return variant.backend not in BASELINES


def engines_or_all(variants: Sequence[VariantResult]) -> list[VariantResult]:
    """The engines, or where only baselines were measured, those."""
    return [variant for variant in variants if is_engine(variant)] or list(variants)


def baseline_of(result: WorkloadResult, variant: VariantResult, backend: Backend) -> VariantResult | None:
    """A baseline for a variant: of the same precision where that was measured; never the variant itself."""
    found = [v for v in result.variants if v.backend == backend and v is not variant]
    return next((v for v in found if v.precision == variant.precision), found[0] if found else None)


def ratio_over(result: WorkloadResult, variant: VariantResult, backend: Backend) -> Spread | None:
    """How many times as fast as a baseline; `None` for the baseline itself and where it was not measured."""
    baseline = baseline_of(result, variant, backend) if variant.backend != backend else None
    return None if baseline is None else variant.ratio_over(baseline)


def share_of_limit(workload: Workload, variant: VariantResult) -> float | None:
    """The speed over what the memory alone would allow, `None` where memory is not what limits.

    By round, where the memory was read after each, and of those the median.
    """
    limit = variant.limit
    if limit is None:
        return None
    if len(limit.rounds) != len(variant.units_per_second):
        return variant.speed.median / limit.units_per_second(workload.slots)
    rounds = zip(variant.units_per_second, limit.rounds, strict=True)
    return float(np.median([speed * limit.step_bytes / (workload.slots * read) for speed, read in rounds]))
