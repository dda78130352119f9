"""`jukebox-deploy bench report` and `bench compare`: show result files as a page, and compare two of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.options import FILE, OutFile, UsualFloat
from jukebox_deploy.cli.tables import output_console, plain_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.benchmarks.compare import Change, Comparison, Drift


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=FILE)
@click.option("--out", required=True, metavar="PAGE.html", type=OutFile(), help="Write the page to this file.")
@click.option(
    "--png",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each plot as a PNG into this folder.",
)
def report(files: tuple[Path, ...], out: Path, png: Path | None) -> None:
    """Make an HTML page with tables and plots from result FILEs of `bench run`.

    The page is self-contained: it loads nothing from the network and has no scripts.
    """
    from jukebox_deploy.benchmarks.drawing.plots import write_png
    from jukebox_deploy.benchmarks.drawing.report import by_machine, write_report
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
    """Return the files by unique names: the file's stem, prefixed with as many of its folders as needed."""
    places = [Path(os.path.abspath(file)) for file in files]
    names = [place.stem for place in places]
    for depth in range(2, max(len(place.parts) for place in places)):
        longer = ["-".join((*place.parts[1:][-depth:-1], place.stem)) for place in places]
        names = [long if names.count(name) > 1 else name for name, long in zip(names, longer, strict=True)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.BadParameter(f"two files are called {twice}; the page tells runs apart by it; rename one.")
    return dict(zip(names, files, strict=True))


@click.command()
@click.argument("before", metavar="A.json", type=FILE)
@click.argument("after", metavar="B.json", type=FILE)
@click.option(
    "--threshold",
    type=UsualFloat(min=0),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="Treat medians that differ by no more than this as unchanged.",
)
@click.option(
    "--fail-on-slower",
    is_flag=True,
    help="Exit with 1 if anything got slower, or if the comparison is inconclusive: no common results, or too few "
    "rounds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as one line of JSON.")
def compare(before: Path, after: Path, threshold: float, fail_on_slower: bool, as_json: bool) -> None:
    """Show what got faster or slower from A.json to B.json, result files of `bench run`.

    Speeds are compared relative to a baseline that both runs measured, round by round, so that a change of the
    baseline itself counts as a change of the machine. A result counts as changed if its medians differ by more than
    the threshold and a rank test over its rounds is significant, given the number of results.
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
    if fail_on_slower and not comparison.conclusive:
        raise click.ClickException(f"{before} and {after}: {'; '.join(comparison.remarks)}.")
    if fail_on_slower and comparison.with_verdict(comparing.Verdict.SLOWER):
        raise click.exceptions.Exit(1)


def _print_comparison(comparison: Comparison) -> None:
    from jukebox_deploy.benchmarks.compare import Verdict
    from jukebox_deploy.benchmarks.drawing.markup import printable
    from jukebox_deploy.benchmarks.drawing.words import title_of

    console = output_console(160)
    for warning in comparison.warnings:
        console.print(f"Warning: the machines differ. {printable(warning)}.", style="yellow")
    for remark in comparison.remarks:
        console.print(f"Warning: {printable(remark)}.", style="yellow")
    for drift in comparison.drifts:
        console.print(printable(f"{title_of(drift.workload)}: {_drift(drift)}."))
    if comparison.changes:
        print_table(console, _changes_table(comparison.changes))
    for measured, where in ((comparison.only_before, "A"), (comparison.only_after, "B")):
        for work, variants in groupby(measured, key=lambda one: title_of(one.workload)):
            names = "; ".join(one.variant for one in variants)
            console.print(printable(f"Only in {where}: {work}: {names}"))
    counts = {verdict: len(comparison.with_verdict(verdict)) for verdict in Verdict}
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + _alone(comparison) + ".")


def _drift(drift: Drift) -> str:
    """Describe how the speed of the baseline itself changed."""
    from jukebox_deploy.quantities import times

    if drift.shared:
        return f"the machine was {times(drift.ratio)} as fast, by {drift.baseline}; all variants moved the same way"
    return f"{drift.baseline} itself was {times(drift.ratio)} as fast"


def _alone(comparison: Comparison) -> str:
    """Return how many results have no counterpart, as the end of a sentence; empty if none."""
    sides = {"A": len(comparison.only_before), "B": len(comparison.only_after)}
    counts = " and ".join(f"{count} of {side}" for side, count in sides.items() if count)
    return f"; {counts} without a counterpart" if counts else ""


def _changes_table(changes: tuple[Change, ...]) -> Table:
    from rich.text import Text

    from jukebox_deploy.benchmarks.drawing.markup import printable
    from jukebox_deploy.benchmarks.drawing.words import quartiles, title_of
    from jukebox_deploy.quantities import number

    names, numbers = ("workload", "variant"), ("A", "B", "B / A")
    table = plain_table(*names, *numbers, "", right=numbers, wrapped=(*names, *numbers, ""))
    for change in sorted(changes, key=lambda c: c.ratio):
        unit = _unit(change)
        table.add_row(
            printable(title_of(change.workload)),
            printable(change.variant + _threads(change)),
            *(f"{number(s.median)} {unit}\n{quartiles(s)}" for s in (change.before, change.after)),
            f"{change.ratio:.3f}",
            Text(change.verdict, style={"faster": "green", "slower": "red"}.get(change.verdict, "dim")),
        )
    return table


def _unit(change: Change) -> str:
    from jukebox_deploy.benchmarks.drawing.words import unit_of
    from jukebox_deploy.quantities import TIMES

    return unit_of(change.workload.kind) if change.baseline is None else f"{TIMES} {change.baseline}"


def _threads(change: Change) -> str:
    before, after = change.threads
    return "" if before == after else f" ({before or 'GPU'} → {after or 'GPU'} threads)"
