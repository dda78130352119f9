"""Measurement of how cost grows: one workload for several values of one field, with everything else fixed."""

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
"""Default values of each axis; those of positions depend on the window (`usual_values`)."""

_POSITION_SHARES = (0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 63 / 64)
"""Default positions, as shares of the window."""


def usual_values(preset: str, axis: Axis, plan: BenchmarkPlan) -> tuple[int, ...]:
    """Return the default values of an axis for a preset.

    Positions are in the shortest window of the priors, each with room for the plan's steps. Raises `ConfigError` if the
    steps do not fit into this window.
    """
    if axis is not Axis.POSITION:
        return VALUES[axis]
    stepping = dataclasses.replace(plan, workloads=(WorkloadKind.STEP,))
    window = min(prior.transformer.context for prior in system_to_measure(preset, stepping).priors)
    if plan.steps > window:
        raise ConfigError(
            f"{plan.steps} steps do not fit into the window of {preset}, which has {window} positions; "
            f"give at most {window} steps."
        )
    return tuple(sorted({min(round(share * window), window - plan.steps) for share in _POSITION_SHARES}))


@dataclasses.dataclass(frozen=True)
class Growth:
    """A measurement along one axis of a preset; `plan` has the other options."""

    preset: str
    axis: Axis
    values: tuple[int, ...]
    plan: BenchmarkPlan

    def measurements(self) -> list[tuple[JukeboxConfig, BenchmarkPlan]]:
        """Return the model and the plan for each value; all numbers of slots are in one plan.

        Raises `ConfigError` for a model whose size cannot be changed along the axis.
        """
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
    """Return the model with one size of its only prior changed, named by `name_along`.

    If the prior has this size already, the model itself is returned. Raises `ConfigError` unless the model has exactly
    one prior, without lyrics.
    """
    if len(config.priors) != 1 or config.priors[0].lyrics:
        raise ConfigError(
            f"the {axis} of {config.name} cannot be changed: that needs a model with a single prior without lyrics; "
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
    """Return context and number of blocks, so that number and length of the blocks grow as the root of the context.

    There are never more blocks than in the preset.
    """
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
    """Measure a workload for each value of the axis; yield each result as soon as it is known.

    Models and graphs are made in `workdir`, with one engine bundle per weight format. Raises `ConfigError` for values
    that the model cannot have, before the first one is measured.
    """
    measurements = growth.measurements()
    for config, plan in measurements:
        check_plan(config, plan)
    for config, plan in measurements:
        checkpoint, bundles = prepare_bundles(config, plan, weights, workdir, listener)
        yield from measure(open_subjects(bundles, checkpoint, plan.device), plan, listener, instruments)
