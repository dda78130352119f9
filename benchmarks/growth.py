"""How cost grows: the same workload at several sizes of one thing, everything else being equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jukebox_deploy.benchmarks.measurement import Instruments, Listener, measure
from jukebox_deploy.benchmarks.plan import BenchmarkPlan, check_plan
from jukebox_deploy.benchmarks.preset_bundles import prepare_bundles, system_to_measure
from jukebox_deploy.benchmarks.results import WorkloadKind, WorkloadResult
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.benchmarks.workload_groups import Axis, name_along
from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import ConfigError

VALUES: dict[Axis, tuple[int, ...]] = {
    Axis.SLOTS: (1, 2, 4, 8, 16, 32, 64),
    Axis.CONTEXT: (1024, 2048, 4096, 8192, 16384),
    Axis.WIDTH: (256, 512, 768, 1024),
    Axis.DEPTH: (12, 24, 48, 72),
    Axis.LENGTH: (2, 4, 8),
    Axis.SONGS: (1, 2, 4, 8),
}
"""What is measured along an axis unless other values are given; positions depend on the window."""

_PLACES = (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 63 / 64)
"""Positions that are measured unless others are given, as parts of a window."""


def usual_values(preset: str, axis: Axis, plan: BenchmarkPlan) -> tuple[int, ...]:
    """What is measured along an axis of a preset unless other values are given.

    Positions are in the shortest window, each with room for the plan's steps. Raises `ConfigError` where none has.
    """
    if axis is not Axis.POSITION:
        return VALUES[axis]
    stepping = dataclasses.replace(plan, workloads=(WorkloadKind.STEP,))
    window = min(prior.transformer.context for prior in system_to_measure(preset, stepping).priors)
    if plan.steps > window:
        raise ConfigError(f"{plan.steps} steps do not fit into the window of {preset}, which has {window}; give fewer.")
    return tuple(sorted({min(round(place * window), window - plan.steps) for place in _PLACES}))


@dataclasses.dataclass(frozen=True)
class Growth:
    """A preset, one axis, and its values."""

    preset: str
    axis: Axis
    values: tuple[int, ...]
    plan: BenchmarkPlan

    def steps(self) -> list[tuple[JukeboxConfig, BenchmarkPlan]]:
        """The model and the plan of each value; all slots are one plan."""
        kinds = (WorkloadKind.SONG,) if self.axis in (Axis.LENGTH, Axis.SONGS) else (WorkloadKind.STEP,)
        plan = dataclasses.replace(self.plan, workloads=kinds)
        config = system_to_measure(self.preset, plan)
        match self.axis:
            case Axis.SLOTS:
                return [(config, dataclasses.replace(plan, slots=self.values))]
            case Axis.POSITION:
                return [(config, dataclasses.replace(plan, position=value)) for value in self.values]
            case Axis.LENGTH:
                return [(config, dataclasses.replace(plan, seconds=float(value))) for value in self.values]
            case Axis.SONGS:
                return [(config, dataclasses.replace(plan, songs=value)) for value in self.values]
        return [(_resized(config, self.axis, value), plan) for value in self.values]


def _resized(config: JukeboxConfig, axis: Axis, value: int) -> JukeboxConfig:
    """The model with one size of its prior changed, and named after it; the model itself if that is its size."""
    if len(config.priors) != 1 or config.priors[0].lyrics:
        raise ConfigError(
            f"{config.name}: only a single prior without lyrics can get another {axis}; "
            "choose the preset mid or upsampler, or a level without lyrics."
        )
    (prior,) = config.priors
    stack = dataclasses.replace(prior.transformer, **_SIZES[axis](prior, value))
    window = value if axis is Axis.CONTEXT else prior.window
    resized = dataclasses.replace(prior, window=window, transformer=stack)
    if resized == prior:
        return config
    return dataclasses.replace(config, name=name_along(axis, config.name, value), priors=(resized,))


def _context_sizes(prior: PriorConfig, value: int) -> dict[str, Any]:
    """As many blocks as the preset, or fewer: their number and length go with the root of the context."""
    blocks = prior.transformer.blocks or 1
    while blocks * blocks > 2 * value:
        blocks //= 2
    return {"context": value, "blocks": blocks}


_SIZES: dict[Axis, Callable[[PriorConfig, int], dict[str, Any]]] = {
    Axis.CONTEXT: _context_sizes,
    Axis.WIDTH: lambda prior, value: {"width": value},
    Axis.DEPTH: lambda prior, value: {"depth": value},
}


def measure_growth(
    growth: Growth,
    weights: Sequence[LinearWeights],
    workdir: Path,
    listener: Listener = lambda text: None,
    instruments: Instruments | None = None,
) -> Iterator[WorkloadResult]:
    """One result per value; models and graphs are made in the work folder.

    Raises `ConfigError` for values that a model cannot have, before the first of them is measured.
    """
    steps = growth.steps()
    for config, plan in steps:
        check_plan(config, plan)
    for config, plan in steps:
        checkpoint, bundles = prepare_bundles(config, plan, weights, workdir, listener)
        yield from measure(open_subjects(bundles, checkpoint, plan.device), plan, listener, instruments)
