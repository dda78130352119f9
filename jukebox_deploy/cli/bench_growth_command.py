"""`jukebox-deploy bench growth`: how cost grows with one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jukebox_deploy.cli.bench_run_command import (
    RecordedCommand,
    names_of,
    numbers_from,
    plan_of,
    plan_options,
    publish,
    record,
    stored_as,
)
from jukebox_deploy.cli.progress import progress_line

_AXES = ("slots", "position", "context", "width", "depth", "length", "songs")
_WEIGHTS = ("fp32", "int8", "int4")


@click.command(cls=RecordedCommand)
@click.argument("axis", type=click.Choice(_AXES))
@click.option("--preset", required=True, metavar="NAME", help="Whose random weights; mid, upsampler, tiny, ...")
@click.option(
    "--workdir",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where models and graphs are kept, to use them again.",
)
@click.option("--values", callback=numbers_from(0), metavar="N,N", help="Sizes to measure. [default: some per axis]")
@click.option("--slots", type=click.IntRange(min=1), default=1, show_default=True, help="Songs at a time.")
@click.option(
    "--weights", callback=names_of(_WEIGHTS), default="fp32", show_default=True, metavar="NAME,NAME", help="Stored so."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Length of each song along the axis songs.",
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
    """Measure a step at several SLOTS, POSITIONs, CONTEXTs, WIDTHs or DEPTHs, or songs of some LENGTHs, or some SONGS.

    Everything but the axis stays as it is, so that plots show how cost grows with it.
    """
    from jukebox_deploy.benchmarks.growth import VALUES, Growth, measure_growth
    from jukebox_deploy.benchmarks.workload_groups import Axis

    choices["slots"] = (choices["slots"],)
    sweep = Growth(preset, Axis(axis), values or VALUES[Axis(axis)], plan_of(choices))
    with progress_line("preparing") as say:
        result = record(measure_growth(sweep, stored_as(weights), workdir, say), say, sweep.plan.device)
    publish(result, out, as_json)
