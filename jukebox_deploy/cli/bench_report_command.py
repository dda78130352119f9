"""`jukebox-deploy bench report` and `bench compare`: what benchmark documents say, as a page and side by side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.lazy_group import HELP
from jukebox_deploy.cli.options import UsualFloat

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.benchmarks.compare import Change, Comparison

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings=HELP)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, metavar="PAGE.html", type=_FILE, help="Write the page to this file.")
@click.option(
    "--png",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each plot as a PNG into this folder.",
)
def report(files: tuple[Path, ...], out: Path, png: Path | None) -> None:
    """Make one HTML page with tables and plots of the result FILEs, which `bench run` wrote.

    The page needs nothing else: no network, no script.
    """
    from jukebox_deploy.benchmarks.plots import write_png
    from jukebox_deploy.benchmarks.report import by_machine, write_report
    from jukebox_deploy.benchmarks.results import BenchmarkRun

    machines = by_machine({name: BenchmarkRun.load(file) for name, file in _told_apart(files).items()})
    write_report(out, machines)
    pictures = [
        write_png(plot, png / f"{machine.name}-{plot.name}.png")
        for machine in machines
        for plot in machine.plots
        if png is not None
    ]
    for path in (out, *pictures):
        click.echo(path)


def _told_apart(files: Sequence[Path]) -> dict[str, Path]:
    """The files by a name of each: its own, and for those of one name as many of its folders as it takes."""
    places = [Path(os.path.abspath(file)) for file in files]
    names = [place.stem for place in places]
    for depth in range(2, max(len(place.parts) for place in places)):
        longer = ["-".join((*place.parts[1:][-depth:-1], place.stem)) for place in places]
        names = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.BadParameter(f"two files are called {twice}; the page tells runs apart by it; rename one.")
    return dict(zip(names, files, strict=True))


@click.command(context_settings=HELP)
@click.argument("before", metavar="A.json", type=_FILE)
@click.argument("after", metavar="B.json", type=_FILE)
@click.option(
    "--threshold",
    type=UsualFloat(min=0),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="Medians that differ by less count as no change.",
)
@click.option(
    "--fail-on-slower", is_flag=True, help="Exit with 1 if anything got slower, or nothing is in both to be compared."
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one line of JSON.")
def compare(before: Path, after: Path, threshold: float, fail_on_slower: bool, as_json: bool) -> None:
    """Say what got faster or slower from A.json to B.json, result files of `bench run`.

    Something changed if the middle halves of its rounds do not overlap and its medians differ by the threshold.
    """
    from jukebox_deploy.benchmarks import compare as comparing
    from jukebox_deploy.benchmarks.results import BenchmarkRun

    comparison = comparing.compare(BenchmarkRun.load(before), BenchmarkRun.load(after), threshold / 100.0)
    if as_json:
        click.echo(json.dumps(comparison.to_json()))
    else:
        _print_comparison(comparison)
    if fail_on_slower and not comparison.changes:
        raise click.ClickException(
            f"nothing to compare: {before} and {after} have no result in common, so nothing says that nothing got "
            "slower. Measure the same workloads and variants; renamed ones need a new A.json."
        )
    if fail_on_slower and comparison.with_verdict(comparing.Verdict.SLOWER):
        raise click.exceptions.Exit(1)


def _print_comparison(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.text import Text

    from jukebox_deploy.benchmarks.compare import Verdict
    from jukebox_deploy.benchmarks.markup import printable
    from jukebox_deploy.benchmarks.words import title_of

    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for warning in comparison.warnings:
        console.print(Text(f"Warning: the machines differ. {printable(warning)}.", style="yellow"))
    if comparison.changes:
        console.print(_changes_table(comparison.changes))
    for measured, where in ((comparison.only_before, "A"), (comparison.only_after, "B")):
        for work, variants in groupby(measured, key=lambda one: title_of(one.workload)):
            names = "; ".join(one.variant for one in variants)
            console.print(Text(printable(f"Only in {where}: {work}: {names}")))
    counts = {verdict: len(comparison.with_verdict(verdict)) for verdict in Verdict}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + _alone(comparison) + ".")


def _alone(comparison: Comparison) -> str:
    """How many results have no counterpart, if any."""
    sides = {"A": len(comparison.only_before), "B": len(comparison.only_after)}
    counts = " and ".join(f"{count} of {side}" for side, count in sides.items() if count)
    return f"; {counts} without a counterpart" if counts else ""


def _changes_table(changes: tuple[Change, ...]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from jukebox_deploy.benchmarks.markup import printable
    from jukebox_deploy.benchmarks.words import number, quartiles, title_of, unit_of

    table = Table(box=box.SIMPLE)
    for heading in ("workload", "variant", "A", "B", "B / A", ""):
        table.add_column(heading, justify="right" if heading in ("A", "B", "B / A") else "left")
    for change in sorted(changes, key=lambda c: c.ratio):
        unit = unit_of(change.workload.kind)
        table.add_row(
            Text(printable(title_of(change.workload))),
            Text(printable(change.variant + _threads(change))),
            *(f"{number(s.median)} {unit}\n{quartiles(s)}" for s in (change.before, change.after)),
            f"{change.ratio:.3f}",
            Text(change.verdict, style={"faster": "green", "slower": "red"}.get(change.verdict, "dim")),
        )
    return table


def _threads(change: Change) -> str:
    before, after = change.threads
    return "" if before == after else f" ({before or 'GPU'} → {after or 'GPU'} threads)"
