"""`jukebox-deploy bench growth`: measure how cost grows along one dimension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jukebox_deploy.cli.bench_run_command import (
    plan_of,
    plan_options,
    publish,
    record,
    stored_as,
    weights_option,
)
from jukebox_deploy.cli.options import PATH, UsualFloat, numbers_from, settings_from_options
from jukebox_deploy.cli.progress import progress_line
from jukebox_deploy.cli.recorded_command import RecordedCommand

_AXES = ("slots", "position", "context", "width", "depth", "length", "songs")


@click.command(cls=RecordedCommand)
@click.argument("axis", type=click.Choice(_AXES))
@click.option(
    "--preset", required=True, metavar="NAME", help="Preset to measure, with random weights: mid, upsampler, tiny, ..."
)
@click.option(
    "--workdir",
    required=True,
    metavar="DIR",
    type=PATH,
    help="Folder that keeps models and graphs for later runs.",
)
@click.option(
    "--values",
    callback=numbers_from(0),
    metavar="N,N",
    help="Values of the axis to measure. [default: depends on the axis]",
)
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Songs sampled at once, for all axes but `slots`.",
)
@weights_option
@click.option(
    "--seconds",
    type=UsualFloat(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Length of each song, for the axis `songs`.",
)
@plan_options
def growth(
    axis: str,
    preset: str,
    workdir: Path,
    values: tuple[int, ...],
    weights: tuple[str, ...],
    as_json: bool,
    out: Path | None,
    **choices: Any,
) -> None:
    """Measure how cost grows along one axis, with everything else fixed.

    slots, position, context, width and depth measure a sampling step; length measures a song of varying length, songs
    a varying number of songs.
    """
    from jukebox_deploy.benchmarks.growth import Growth, measure_growth, usual_values
    from jukebox_deploy.benchmarks.workload_groups import Axis

    choices["slots"] = (choices["slots"],)
    with settings_from_options():
        plan = plan_of(choices)
    sweep = Growth(preset, Axis(axis), values or usual_values(preset, Axis(axis), plan), plan)
    with progress_line("preparing") as say:
        result = record(measure_growth(sweep, stored_as(weights), workdir, say), say, plan.device, out)
    publish(result, out, as_json)
