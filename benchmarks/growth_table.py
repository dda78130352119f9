"""How cost grows along each axis, as a table of Markdown: of every axis the newest run of `bench growth`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jukebox_deploy.benchmarks.filled_blocks import Block, escaped, table
from jukebox_deploy.benchmarks.results import BenchmarkRun, WorkloadKind
from jukebox_deploy.benchmarks.sweep_plot import ends_of, one_more_of, proportion_of
from jukebox_deploy.benchmarks.words import seconds, times, work_of
from jukebox_deploy.benchmarks.workload_groups import Axis, Sweep, is_engine, name_along, sweeps

DOCUMENT = "docs/speed.md"
NOTHING = "No growth is recorded yet."

_HEADINGS = ("what", "model", "engine", ">from", ">to", ">growth", ">in proportion", ">one more")


def growth_table(results: Path) -> str:
    """The table from the result files of a folder: an axis, and each engine that was measured along it."""
    runs = [BenchmarkRun.load(path) for path in sorted(results.glob("*-growth-*.json"))]
    newest: dict[tuple[Axis, WorkloadKind, str], Sweep] = {}
    for run in sorted(runs, key=lambda run: run.date):
        for sweep in sweeps(run.results):
            newest[sweep.axis, sweep.results[0].workload.kind, model_of(sweep)] = sweep
    axes = list(Axis)
    ordered = sorted(newest.values(), key=lambda sweep: (axes.index(sweep.axis), model_of(sweep)))
    rows = [row for sweep in ordered for row in _rows(sweep)]
    return table(_HEADINGS, rows) if rows else NOTHING


def model_of(sweep: Sweep) -> str:
    """What the models of a sweep are variations of: `mid` for `mid-depth-12`."""
    return sweep.results[0].workload.model.removesuffix(name_along(sweep.axis, "", int(sweep.values[0])))


def _rows(sweep: Sweep) -> Iterator[tuple[str, ...]]:
    for variant in filter(is_engine, sweep.variants):
        (_, first), *_, (_, last) = sweep.costs(variant.name)
        yield (
            escaped(f"{ends_of(sweep)}: {work_of(sweep.results[0].workload.kind)}"),
            escaped(model_of(sweep)),
            escaped(variant.name),
            seconds(first.median),
            seconds(last.median),
            times(sweep.growth(variant.name)),
            "" if (proportion := proportion_of(sweep)) is None else times(proportion),
            seconds(sweep.slope(variant.name)) if one_more_of(sweep) else "",
        )


GROWTH_BLOCK = Block(DOCUMENT, "growth", lambda root: growth_table(root / "benchmarks" / "results"))
