"""A benchmark run as a table on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.results import BenchmarkRun, Spread, VariantResult, WorkloadResult
from jukebox_deploy.benchmarks.words import (
    BACKEND,
    NOT_MEASURED,
    byte_size,
    number,
    percent,
    seconds,
    title_of,
    unit_of,
)
from jukebox_deploy.benchmarks.workload_groups import BASELINES, ratio_over, share_of_limit

if TYPE_CHECKING:
    from rich.table import Table

_LEGEND = (
    "Speeds are medians of the rounds, with least and quartiles in brackets; ratios are taken within each round. "
    "Memory's limit: the bytes that a step must move, at the speed at which this machine read as many."
)


def print_run(run: BenchmarkRun) -> None:
    """The machine's card, then a table for each workload."""
    from rich.console import Console

    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(_card(run), markup=False, soft_wrap=True)
    for result in run.results:
        console.print(f"\n{title_of(result.workload)}", style="bold", markup=False)
        for line in _moved(result):
            console.print(line, style="dim", markup=False, soft_wrap=True)
        console.print(_table(result))
    console.print(_LEGEND, soft_wrap=True)
    for note in dict.fromkeys(note for result in run.results for v in result.variants for note in v.notes):
        console.print(f"{note}.", style="dim", markup=False, soft_wrap=True)


def _card(run: BenchmarkRun) -> str:
    machine = run.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    return (
        f"{machine.name}, {machine.cores} cores, {byte_size(machine.memory_bytes)}, {machine.system}, "
        f"Python {machine.python}, {packages}; memory read at {machine.read_bytes_per_second / 1e9:.1f} GB/s"
    )


def _moved(result: WorkloadResult) -> list[str]:
    """What the memory has to move, a line per way to store weights."""
    limits = {(v.precision, v.weights): v.limit for v in result.variants if v.limit is not None}
    return [
        f"{weights} weights: {byte_size(limit.weight_bytes)} and {byte_size(limit.cache_bytes_per_slot)} of caches per "
        f"slot, {byte_size(limit.step_bytes)} per step; read at {limit.read_bytes_per_second / 1e9:.1f} GB/s that is "
        f"at most {number(limit.units_per_second(result.workload.slots))} {unit_of(result.workload.kind)}"
        for (_, weights), limit in limits.items()
    ]


def _table(result: WorkloadResult) -> Table:
    from rich import box
    from rich.table import Table

    baselines = [backend for backend in BASELINES if result.variant(backend)]
    table = Table(box=box.SIMPLE)
    table.add_column("variant", no_wrap=True)
    for heading in (
        "threads",
        unit_of(result.workload.kind),
        *(f"over\n{BACKEND[backend]}" for backend in baselines),
        "memory's\nlimit",
        "call\n(p90; p99)",
        "first\ncall",
        "load",
        "peak\nmemory",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
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
        f"{seconds(latency.p50)}\n({seconds(latency.p90)}; {seconds(latency.p99)})",
        seconds(variant.first_seconds),
        seconds(variant.load_seconds),
        byte_size(variant.peak_memory_bytes),
    ]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return NOT_MEASURED
    least, lower, upper = (number(value) for value in (spread.minimum, spread.lower_quartile, spread.upper_quartile))
    return f"{number(spread.median)}\n({least}; {lower}-{upper})"
