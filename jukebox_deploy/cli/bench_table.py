"""A benchmark run as a table on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.drawing.words import BACKEND, tail_of, title_of, unit_of, unsteady
from jukebox_deploy.benchmarks.results import CALLS_FOR_PERCENTILES, BenchmarkRun, Spread, VariantResult, WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import BASELINES, ratio_over, share_of_limit
from jukebox_deploy.cli.tables import output_console, plain_table, print_table
from jukebox_deploy.quantities import NOT_MEASURED, byte_size, number, percent, seconds

if TYPE_CHECKING:
    from rich.table import Table

_LEGEND = (
    "Speeds are medians of the rounds, with least and quartiles in brackets; ratios are taken within each round. "
    "Memory's limit: speed as a share of what memory bandwidth alone would allow, given the bytes that a step must "
    "move and the bandwidth at which this machine read as many after each round. "
    "Call: the median, with the 90th percentile and the tail in brackets. "
    f"Tail: the slowest call in a hundred (p99), or the slowest of fewer than {CALLS_FOR_PERCENTILES} calls."
)


def print_run(run: BenchmarkRun) -> None:
    """Print a description of the machine, then a table for each workload."""
    console = output_console(200)
    console.print(_card(run), soft_wrap=True)
    for result in run.results:
        console.print(f"\n{title_of(result.workload)}", style="bold")
        for line in _moved(result):
            console.print(line, style="dim", soft_wrap=True)
        print_table(console, _table(result))
        if warning := unsteady(result):
            console.print(f"Warning: {warning}", style="yellow", soft_wrap=True)
    console.print(_LEGEND, soft_wrap=True)
    for note in dict.fromkeys(note for result in run.results for v in result.variants for note in v.notes):
        console.print(f"{note}.", style="dim", soft_wrap=True)


def _card(run: BenchmarkRun) -> str:
    machine = run.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"{machine.name}, {machine.cores} cores, {byte_size(machine.memory_bytes)}, {machine.system}, "
        f"Python {machine.python}, {packages}; memory read at {byte_size(machine.read_bytes_per_second)}/s"
    )


def _moved(result: WorkloadResult) -> list[str]:
    """Return the memory traffic of a step, a line per weight format."""
    limits = {(v.precision, v.weights): v.limit for v in result.variants if v.limit is not None}
    return [
        f"{weights} weights: {byte_size(limit.weight_bytes)} and {byte_size(limit.cache_bytes_per_slot)} of caches per "
        f"slot, {byte_size(limit.step_bytes)} per step; read at {byte_size(limit.read_bytes_per_second)}/s that is "
        f"at most {number(limit.units_per_second(result.workload.slots))} {unit_of(result.workload.kind)}"
        for (_, weights), limit in limits.items()
    ]


def _table(result: WorkloadResult) -> Table:
    baselines = [backend for backend in BASELINES if result.variant(backend)]
    numbers = (
        "threads",
        unit_of(result.workload.kind),
        *(f"over\n{BACKEND[backend]}" for backend in baselines),
        "memory's\nlimit",
        "call\n(p90; tail)",
        "first\ncall",
        "load",
        "peak\nmemory",
    )
    table = plain_table("variant", *numbers, right=numbers)
    for variant in result.variants:
        ratios = [_spread(ratio_over(result, variant, backend)) for backend in baselines]
        table.add_row(*_before(variant), *ratios, *_after(result, variant))
    return table


def _before(variant: VariantResult) -> list[str]:
    return [variant.name, str(variant.threads or "GPU"), _spread(variant.speed)]


def _after(result: WorkloadResult, variant: VariantResult) -> list[str]:
    latency = variant.latency
    return [
        percent(share_of_limit(result.workload, variant)),
        f"{seconds(latency.p50)}\n({seconds(latency.p90)}; {tail_of(latency)})",
        seconds(variant.first_seconds),
        seconds(variant.load_seconds),
        byte_size(variant.peak_memory_bytes),
    ]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return NOT_MEASURED
    least, lower, upper = (number(value) for value in (spread.minimum, spread.lower_quartile, spread.upper_quartile))
    return f"{number(spread.median)}\n({least}; {lower}-{upper})"
