"""The report of benchmark runs: one self-contained HTML page with plots and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from jukebox_deploy.benchmarks.drawing.markup import Markup, join, tag
from jukebox_deploy.benchmarks.drawing.page import facts, page, table
from jukebox_deploy.benchmarks.drawing.plot_layout import PAGE_COLOURS, Plot, colour_of
from jukebox_deploy.benchmarks.drawing.plots import plots_of
from jukebox_deploy.benchmarks.drawing.svg import inline_svg
from jukebox_deploy.benchmarks.drawing.words import describe_gpu, quartiles, tail_of, title_of, unit_of, unsteady
from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import Backend, BenchmarkRun, VariantResult, Workload, WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import BASELINES, ratio_over, share_of_limit
from jukebox_deploy.files import write_text_atomic
from jukebox_deploy.quantities import NOT_MEASURED, byte_size, number, percent, seconds, short, times

_Column = tuple[str, Callable[[VariantResult], str]]  # the heading, and a function that returns the cell of a variant

_OPEN_TABLES = 8  # with more tables of one machine, all of them are folded

_TITLE = "How fast Jukebox runs"
_INTRODUCTION = (
    "The variants of a workload took turns in one process, with the same weights. Speeds are medians of the rounds; "
    "below each is the range of the middle half of the rounds. Ratios are taken within each round, over a baseline of "
    'the same precision if there is one. "Of limit" is the speed as a share of the limit that memory bandwidth sets. '
    "A dash means that nothing was measured."
)


@dataclass(frozen=True)
class MachineReport:
    """All runs of one machine with the same software versions, by name, the oldest first."""

    runs: dict[str, BenchmarkRun]

    @property
    def machine(self) -> Machine:
        """The machine as described by the newest run; the runs differ in the measured bandwidth only."""
        return list(self.runs.values())[-1].machine

    @property
    def name(self) -> str:
        """The name of the newest run, for the names of picture files."""
        return list(self.runs)[-1]

    @property
    def results(self) -> list[WorkloadResult]:
        """The results of all runs."""
        return [result for run in self.runs.values() for result in run.results]

    @property
    def days(self) -> str:
        """The dates of the first and the last run, `2026-01-02 to 2026-01-03`."""
        dates = [run.date[:10] for run in self.runs.values()]
        return " to ".join(dict.fromkeys((dates[0], dates[-1])))

    @cached_property
    def plots(self) -> list[Plot]:
        """The plots of all runs together, so that sweeps over several runs are included."""
        return plots_of({name: run.results for name, run in self.runs.items()})


def by_machine(runs: Mapping[str, BenchmarkRun]) -> list[MachineReport]:
    """Group runs by machine and software versions; the measured bandwidth may differ."""
    machines: list[tuple[Machine, MachineReport]] = []
    for name, run in sorted(runs.items(), key=lambda item: item[1].date):
        machine = replace(run.machine, read_bytes_per_second=0.0)
        known = next((report for other, report in machines if other == machine), None)
        if known is None:
            machines.append((machine, known := MachineReport({})))
        known.runs[name] = run
    return [report for _, report in machines]


def write_report(path: Path, machines: Sequence[MachineReport]) -> None:
    """Write the page; a failure leaves no partial file."""
    write_text_atomic(path, report_html(machines))


def report_html(machines: Sequence[MachineReport]) -> str:
    """Return the page: for each machine its runs, its plots and a table per workload."""
    anchors = {f"machine-{number}": report for number, report in enumerate(machines, 1)}
    sections = [_section(anchor, report) for anchor, report in anchors.items()]
    return page(_TITLE, tag("p", _INTRODUCTION, class_="muted"), _links(anchors), *sections)


def _links(anchors: Mapping[str, MachineReport]) -> Markup:
    """Return links to the sections, if there are several machines."""
    if len(anchors) < 2:
        return Markup()
    links = [
        tag("li", tag("a", report.machine.name, href=f"#{anchor}"), f", {report.days}, with {report.name}")
        for anchor, report in anchors.items()
    ]
    return tag("nav", tag("ul", *links), aria_label="Machines")


def _section(anchor: str, report: MachineReport) -> Markup:
    figures = [_figure(anchor, plot) for plot in report.plots]
    folded = len(report.results) > _OPEN_TABLES
    return tag(
        "section",
        tag("h2", report.machine.name, id=anchor),
        _machine_facts(report.machine),
        *(_run_facts(name, run) for name, run in report.runs.items()),
        tag("div", *figures, class_="plots") if figures else tag("p", "No results."),
        *(
            _workload(result, f"{name}, {run.date}", folded)
            for name, run in report.runs.items()
            for result in run.results
        ),
    )


def _machine_facts(machine: Machine) -> Markup:
    return facts(
        {
            **({"processor": machine.processor} if machine.gpu else {}),
            "cores": machine.cores,
            "memory": byte_size(machine.memory_bytes),
            **({"GPU": "; ".join(map(describe_gpu, machine.gpus))} if machine.gpus else {}),
            "system": machine.system,
            "versions": ", ".join(f"{p} {v}" for p, v in {"Python": machine.python, **machine.packages}.items()),
        }
    )


def _run_facts(name: str, run: BenchmarkRun) -> Markup:
    return facts(
        {
            "run": run.date,
            "file": name,
            "command": tag("code", run.command),
            "memory bandwidth": f"{byte_size(run.machine.read_bytes_per_second)}/s, measured in this run",
            **({} if run.complete else {"complete": "no: it was stopped before its end"}),
        }
    )


def _figure(anchor: str, plot: Plot) -> Markup:
    svg = inline_svg(plot.figure, f"{anchor}-{plot.name}", plot.title, PAGE_COLOURS)
    caption = tag("figcaption", tag("strong", plot.title), tag("span", plot.note))
    if not plot.table:
        return tag("figure", caption, svg)
    numbers = table(plot.title, plot.table[0], plot.table[1:])
    return tag("figure", caption, svg, tag("details", tag("summary", "The numbers"), numbers))


def _workload(result: WorkloadResult, origin: str, folded: bool) -> Markup:
    """Return the heading of a workload, the run that it comes from, and the table of its variants."""
    title = title_of(result.workload)
    columns = [*_speed_columns(result), *_COLUMNS, *(_MEMORY_COLUMNS if any(v.limit for v in result.variants) else ())]
    rows = [[_name(variant), *(cell(variant) for _, cell in columns)] for variant in result.variants]
    numbers = join(table(f"{title}: {origin}", ["variant", *(heading for heading, _ in columns)], rows), _notes(result))
    return join(
        tag("h3", title),
        tag("p", "; ".join(filter(None, (origin, _sizes(result.workload)))), class_="muted"),
        tag("details", tag("summary", "The numbers"), numbers) if folded else numbers,
    )


def _name(variant: VariantResult) -> Markup:
    return join(tag("span", class_="swatch", style=f"background:{colour_of(variant)}"), variant.name)


def _speed_columns(result: WorkloadResult) -> Iterator[_Column]:
    yield unit_of(result.workload.kind), lambda v: _with_quartiles(number(v.speed.median), quartiles(v.speed))
    for backend in BASELINES:
        if any(ratio_over(result, variant, backend) for variant in result.variants):
            yield f"over {backend}", partial(_ratio_cell, result, backend)
    yield "of limit", lambda v: percent(share_of_limit(result.workload, v))


def _ratio_cell(result: WorkloadResult, backend: Backend, variant: VariantResult) -> str:
    ratio = ratio_over(result, variant, backend)
    return NOT_MEASURED if ratio is None else _with_quartiles(times(ratio.median), quartiles(ratio))


_COLUMNS: tuple[_Column, ...] = (
    ("p50", lambda v: seconds(v.latency.p50)),
    ("p90", lambda v: seconds(v.latency.p90)),
    ("tail", lambda v: tail_of(v.latency)),
    ("load", lambda v: seconds(v.load_seconds)),
    ("first call", lambda v: seconds(v.first_seconds)),
    ("peak memory", lambda v: byte_size(v.peak_memory_bytes)),
    ("threads", lambda v: "GPU" if v.threads is None else str(v.threads)),
)

_MEMORY_COLUMNS: tuple[_Column, ...] = (
    ("weights", lambda v: byte_size(v.limit.weight_bytes if v.limit else None)),
    ("caches per slot", lambda v: byte_size(v.limit.cache_bytes_per_slot if v.limit else None)),
    ("bytes per step", lambda v: byte_size(v.limit.step_bytes if v.limit else None)),
    ("bandwidth", lambda v: f"{byte_size(v.limit.read_bytes_per_second)}/s" if v.limit else NOT_MEASURED),
)


def _with_quartiles(median: str, quartile_range: str) -> Markup:
    return join(median, tag("span", quartile_range, class_="quartiles"))


def _sizes(workload: Workload) -> str:
    sizes = {"width": workload.width, "depth": workload.depth, "context": workload.context}
    return ", ".join(f"{name} {short(value)}" for name, value in sizes.items() if value is not None)


def _notes(result: WorkloadResult) -> Markup:
    """Return the notes and the warning below the table of a workload."""
    notes = [tag("li", f"{variant.name}: {note}") for variant in result.variants for note in variant.notes]
    notes += [tag("li", f"Warning: {warning}")] if (warning := unsteady(result)) else []
    return tag("ul", *notes, class_="muted") if notes else Markup()
