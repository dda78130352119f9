"""`jukebox-deploy bench`: the speed of the step, against PyTorch and against the memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import progress_line
from jukebox_deploy.files import write_json_atomic

if TYPE_CHECKING:
    from jukebox_deploy.benchmarks.bundle_speed import PriorSpeed
    from jukebox_deploy.benchmarks.machine import Machine
    from jukebox_deploy.benchmarks.step_speed import Spread


def _counts(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers; write them like 1,4.") from None
    if min(counts) < 1:
        raise click.BadParameter(f"{value!r} has a number below 1.")
    return counts


@click.command()
@click.argument("bundle", metavar="ENGINE_BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="The checkpoint bundle that it was exported from.",
)
@click.option("--level", type=click.IntRange(min=0), help="Measure the prior of this level only.")
@click.option(
    "--slots", callback=_counts, default="1,4", show_default=True, metavar="N,N", help="Songs sampled at a time."
)
@click.option("--steps", type=click.IntRange(min=1), default=64, show_default=True, help="Steps of a round.")
@click.option("--rounds", type=click.IntRange(min=5), default=5, show_default=True, help="Rounds of both sides.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of both sides. Default: as many as pay.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
def command(bundle: Path, against: Path, out: Path | None, as_json: bool, **workload: Any) -> None:
    """Measure tokens per second of ENGINE_BUNDLE against PyTorch with the same weights.

    Both sides take turns in one process. Everything that is printed was measured in this run.
    """
    from jukebox_deploy.benchmarks.bundle_speed import BundleWorkload, measure_bundle
    from jukebox_deploy.benchmarks.machine import describe_machine
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.jobs.opening import tool_versions

    opened, checkpoint = open_bundle(bundle), CheckpointBundle.open(against)
    with progress_line(as_json, "opening") as say:

        def listener(what: str) -> None:
            say(f"measuring {what}")

        speeds = list(measure_bundle(opened, checkpoint, BundleWorkload(**workload), listener))
        listener("memory")
        machine = describe_machine(tool_versions("jukebox-deploy", "torch", "onnxruntime", "onnxruntime-gpu"))
    report = {
        "bundle": str(bundle),
        "model": opened.manifest.config.name,
        "target": str(opened.manifest.target),
        "checkpoint": opened.manifest.checkpoint,
        "machine": machine.to_json(),
        "priors": [speed.to_json() for speed in speeds],
    }
    if out is not None:
        write_json_atomic(out, report)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_report(machine, speeds)


_HEADINGS = (
    "prior",
    "slots",
    "threads",
    "engine\ntokens/s",
    "PyTorch\ntokens/s",
    "ratio",
    "memory's limit\ntokens/s",
    "times\nreal time",
    "step\nms/token",
    "prefill\nms/token",
)


def _print_report(machine: Machine, speeds: list[PriorSpeed]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    for speed in speeds:
        table.add_row(*_cells(speed))
    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 160)
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    console.print(
        f"{machine.processor}, {machine.cores} cores, Python {machine.python}, {packages}; "
        f"memory read at {machine.read_bytes_per_second / 1e9:.1f} GB/s"
    )
    console.print(table)
    console.print(
        "Medians of the rounds, with least and quartiles in brackets. Ratio: engine over PyTorch within each round. "
        "Memory's limit: the bytes that a step must move, at the speed at which this machine read as many. "
        "Real time: for one song, at this level."
    )


def _cells(prior: PriorSpeed) -> list[str]:
    speed = prior.speed
    return [
        str(speed.workload.level),
        str(speed.workload.slots),
        str(prior.threads),
        _spread(speed.engine.tokens_per_second, ",.0f"),
        _spread(speed.eager.tokens_per_second, ",.0f"),
        _spread(speed.ratio, ".2f"),
        f"{speed.limit_tokens_per_second:,.0f}\n{100 * speed.share_of_limit:.0f} % reached",
        f"{speed.times_real_time:.2g}",
        f"{speed.engine.step_milliseconds.median:.3g}",
        f"{speed.engine.prefill_milliseconds.median:.3g}",
    ]


def _spread(spread: Spread, form: str) -> str:
    least, lower, median, upper = (
        format(value, form) for value in (spread.minimum, spread.lower_quartile, spread.median, spread.upper_quartile)
    )
    return f"{median}\n({least}; {lower}-{upper})"
