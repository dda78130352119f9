"""`jukebox-deploy verify`: an engine bundle against the checkpoint it was made from."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.options import comma_separated, progress_line
from jukebox_deploy.files import write_json_atomic

if TYPE_CHECKING:
    from jukebox_deploy.jobs.verify_report import Check, VerifyReport


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="The checkpoint bundle that it was exported from.",
)
@click.option("--graphs", callback=comma_separated, metavar="step_2,prefill_2", help="Compare these graphs only.")
@click.option(
    "--windows",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Places in each prior's window where prefill and steps are compared; 2 adds the window's end.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    bundle: Path, against: Path, graphs: tuple[str, ...], windows: int, out: Path | None, as_json: bool
) -> None:
    """Compare the engine bundle BUNDLE with PyTorch, from its hashes to the sound.

    Exit code 0: nothing differs beyond the tolerances. 1: something does; the report says what.
    """
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.jobs.verify_job import VerifyRequest, verify_bundle

    request = VerifyRequest(graphs, windows)
    with progress_line(as_json, "comparing") as say:

        def listener(check: Check) -> None:
            say(f"{check.graph}: {check.kind} {check.where}")

        report = verify_bundle(open_bundle(bundle), CheckpointBundle.open(against), request, listener)
    if out is not None:
        write_json_atomic(out, report.to_json())
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _print_report(report)
    report.require()


def _print_report(report: VerifyReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from jukebox_deploy.jobs.verify_report import Outcome

    table = Table(box=box.SIMPLE)
    table.add_column("graph", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("at", no_wrap=True)
    table.add_column("found")
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for check in report.checks:
        table.add_row(check.graph, check.kind, check.where, *_finding(check), check.outcome)
    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"{report.bundle}: {len(report.files)} files, every hash matches; exported from this checkpoint.")
    console.print(table)
    counts = ", ".join(f"{report.count(outcome)} {outcome}" for outcome in Outcome)
    console.print(f"{len(report.checks)} checks: {counts}.")


def _finding(check: Check) -> tuple[str, str]:
    """What was measured, and its limit."""
    if check.reason:
        return check.reason, ""
    value = "equal" if check.value == math.inf else f"{check.value:.3g}"
    return f"{value} {check.measure}", "" if check.limit is None else f"{check.limit:.3g}"
