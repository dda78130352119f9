"""The table in docs/speed.md of how cost grows along each axis, from the newest complete runs of `bench growth`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from jukebox_deploy.benchmarks.documents.filled_blocks import Block, escaped
from jukebox_deploy.benchmarks.drawing.sweep_plot import one_more_of, proportion_of, words_for
from jukebox_deploy.benchmarks.drawing.words import work_of
from jukebox_deploy.benchmarks.results import BenchmarkRun, WorkloadKind
from jukebox_deploy.benchmarks.workload_groups import Axis, Sweep, base_model, is_engine, sweeps
from jukebox_deploy.markdown import table
from jukebox_deploy.quantities import seconds, times

DOCUMENT = "docs/speed.md"
NOTHING = "No growth is recorded yet."

_HEADINGS = ("what", "model", "engine", ">from", ">to", ">growth", ">in proportion", ">one more")


def growth_table(results: Path) -> str:
    """Return the Markdown table of the result files in a folder: a row per sweep and engine.

    Of several complete runs with the same axis, kind of workload, model and level, the newest one counts.
    """
    runs = [BenchmarkRun.load(path) for path in sorted(results.glob("*-growth-*.json"))]
    newest: dict[tuple[Axis, WorkloadKind, str, int], Sweep] = {}
    for run in sorted((run for run in runs if run.complete), key=lambda run: run.date):
        for sweep in sweeps({"": run.results}):
            work = sweep.results[0].workload
            newest[sweep.axis, work.kind, base_model(work, sweep.axis), work.level] = sweep
    axes = list(Axis)
    ordered = sorted(newest.items(), key=lambda item: (axes.index(item[0][0]), item[0][2:]))
    levels = Counter(key[:3] for key in newest)
    rows = [row for key, sweep in ordered for row in _rows(sweep, key[3] if levels[key[:3]] > 1 else None)]
    return table(_HEADINGS, rows) if rows else NOTHING


def _rows(sweep: Sweep, level: int | None) -> Iterator[tuple[str, ...]]:
    """Yield a row per engine, from its first to its last value; `level` is shown unless it is `None`."""
    work = sweep.results[0].workload
    model = base_model(work, sweep.axis) + ("" if level is None else f", level {level}")
    for variant in filter(is_engine, sweep.variants):
        (_, first), *_, (_, last) = sweep.costs(variant.name)
        ends = sweep.ends(variant.name)
        yield (
            escaped(f"{words_for(sweep.axis, ends)}: {work_of(work.kind)}"),
            escaped(model),
            escaped(variant.name),
            seconds(first.median),
            seconds(last.median),
            times(sweep.growth(variant.name)),
            "" if (proportion := proportion_of(sweep.axis, ends)) is None else times(proportion),
            seconds(sweep.slope(variant.name)) if one_more_of(sweep) else "",
        )


GROWTH_BLOCK = Block(DOCUMENT, "growth", lambda root: growth_table(root / "benchmarks" / "results"))
