"""The plots of a benchmark run: speed and memory limit, ratio over a baseline, latency, and growth of cost."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.benchmarks.drawing import plot_layout as layout
from jukebox_deploy.benchmarks.drawing.plot_layout import Plot, Row, log_axis, mark_height
from jukebox_deploy.benchmarks.drawing.sweep_plot import sweep_plot
from jukebox_deploy.benchmarks.drawing.words import factor_range, tail_of, title_of, unit_of
from jukebox_deploy.benchmarks.results import (
    CALLS_FOR_PERCENTILES,
    Latency,
    Spread,
    VariantResult,
    WorkloadKind,
    WorkloadResult,
)
from jukebox_deploy.benchmarks.workload_groups import (
    BASELINES,
    Axis,
    distinct,
    engines_or_all,
    headlines,
    is_engine,
    ratio_over,
    same_work,
    share_of_limit,
    sweeps,
)
from jukebox_deploy.files import atomic_path
from jukebox_deploy.quantities import number, percent, seconds, short, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR = 0.26  # height of a bar, in rows


def plots_of(runs: Mapping[str, Sequence[WorkloadResult]]) -> list[Plot]:
    """Return all plots that there are data for.

    `runs`: the results of each run of one machine, by the name of the run, the oldest first.
    """
    results = distinct([result for own in runs.values() for result in own])
    with layout.plot_style():
        chosen = headlines(results)
        source = _source_note(runs, chosen)
        plots = [
            replace(plot, note=f"{plot.note} {source}".strip())
            for draw in (_speed_plot, _ratio_plot, _latency_plot)
            for plot in draw(chosen)
        ]
        counts: dict[Axis, int] = {}
        for sweep in sweeps(runs):
            counts[sweep.axis] = counts.get(sweep.axis, 0) + 1
            plots.append(sweep_plot(sweep, f"cost-{sweep.axis}-{counts[sweep.axis]}"))
    return plots


def _source_note(runs: Mapping[str, Sequence[WorkloadResult]], chosen: Sequence[WorkloadResult]) -> str:
    """Return from which run the chosen results come, for those that several runs measured."""
    sentences = []
    for result in chosen:
        work = result.workload
        names = [name for name, own in runs.items() if any(same_work(one.workload, work) for one in own)]
        if len(names) > 1:
            shown = next(name for name in reversed(names) if any(one is result for one in runs[name]))
            sentences.append(f"{title_of(work)}: as measured in {shown}, one of {len(names)} runs.")
    return " ".join(sentences)


def write_png(plot: Plot, path: Path) -> Path:
    """Write a plot as PNG with its title above it; return the path."""
    with layout.plot_style():
        lines = textwrap.wrap(layout.fitted_text(plot.title, 200), 46)
        title = plot.figure.text(0.02, 1.0, "\n".join(lines), va="bottom", weight="bold", size=11)
        with atomic_path(path) as partial:
            plot.figure.savefig(partial, format="png", dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.12)
        title.remove()
    return path


def _speed_plot(results: Sequence[WorkloadResult]) -> Iterator[Plot]:
    """Plot the speed of steps as bars, in front of the limit that memory sets."""
    steps = [r for r in results if r.workload.kind is WorkloadKind.STEP and any(v.limit for v in r.variants)]
    if not steps:
        return
    panels = [(title_of(r.workload), [Row(v, _speed_and_share(r, v)) for v in r.variants]) for r in steps]
    figure, all_axes = layout.stacked_panels(panels, ticks=False)
    for axes, result in zip(all_axes, steps, strict=True):
        limits = [v.limit.units_per_second(result.workload.slots) if v.limit else 0.0 for v in result.variants]
        axes.set_xlim(0.0, 1.02 * max(*limits, *(v.speed.upper_quartile for v in result.variants)))
        for row, (variant, limit) in enumerate(zip(result.variants, limits, strict=True)):
            height = mark_height(row)
            axes.barh(height, limit, _BAR, color=layout.TRACK)
            axes.barh(height, variant.speed.median, _BAR, color=layout.colour_of(variant))
            if limit:
                axes.vlines(limit, height - 0.2, height + 0.2, color=layout.INK, linewidth=1.6)
            axes.hlines(
                height, variant.speed.lower_quartile, variant.speed.upper_quartile, color=layout.INK, linewidth=1.0
            )
    shares = [(share_of_limit(r.workload, v) or 0.0, v) for r in steps for v in engines_or_all(r.variants)]
    share, best = max(shares, key=lambda pair: pair[0])
    yield Plot(
        "speed",
        f"Up to {percent(share)} of what the memory allows ({best.name})",
        "Tokens per second of all slots together. Bar: median of the rounds, with a line over the middle half of the "
        "rounds. Grey bar and vertical mark: the limit that memory bandwidth sets, given the bytes that a step of this "
        "variant must move.",
        figure,
    )


def _speed_and_share(result: WorkloadResult, variant: VariantResult) -> str:
    share = share_of_limit(result.workload, variant)
    speed = f"{number(variant.speed.median)} {unit_of(result.workload.kind)}"
    return speed if share is None else f"{speed} · {percent(share)}"


def _ratio_plot(results: Sequence[WorkloadResult]) -> Iterator[Plot]:
    """Plot medians and quartiles of the ratios over the first of `BASELINES` that was measured."""
    backend = next((b for b in BASELINES if any(ratio_over(r, v, b) for r in results for v in r.variants)), None)
    if backend is None:
        return
    measured = [
        (result, [(v, ratio) for v in result.variants if (ratio := ratio_over(result, v, backend))])
        for result in results
    ]
    measured = [(result, ratios) for result, ratios in measured if ratios]
    panels = [(title_of(result.workload), [Row(v, times(s.median)) for v, s in ratios]) for result, ratios in measured]
    figure, all_axes = layout.stacked_panels(panels, ticks=True)
    spreads = [ratio for _, ratios in measured for _, ratio in ratios]
    low, high = min(1.0, *(s.minimum for s in spreads)), max(1.0, *(s.maximum for s in spreads))
    for axes, (_, ratios) in zip(all_axes, measured, strict=True):
        log_axis(axes, "x", (low, high), partial(times, written=short))
        axes.axvline(1.0, color=layout.MUTED, linewidth=1.0)
        for row, (variant, ratio) in enumerate(ratios):
            _draw_ratio(axes, mark_height(row), variant, ratio)
    engines = [ratio.median for _, ratios in measured for v, ratio in ratios if is_engine(v)]
    yield Plot(
        "ratio",
        f"{factor_range(engines or [s.median for s in spreads])} the speed of {backend}",
        f"Speed divided by that of {backend}, round by round. Mark: median, with a line over the middle half of the "
        "rounds. The baseline has the same precision if that was measured. Further right is faster; the axis is "
        "logarithmic.",
        figure,
    )


def _draw_ratio(axes: Axes, height: float, variant: VariantResult, spread: Spread) -> None:
    """Draw the median with a thin line from 1, and a thick line between the quartiles."""
    colour = layout.colour_of(variant)
    axes.hlines(height, 1.0, spread.median, color=layout.TRACK, linewidth=1.2)
    axes.hlines(height, spread.lower_quartile, spread.upper_quartile, color=colour, linewidth=2.5)
    axes.plot([spread.median], [height], markersize=6, clip_on=False, **layout.marker_of(variant))


def _latency_plot(results: Sequence[WorkloadResult]) -> Iterator[Plot]:
    """Plot the latency from the median to the 90th and the 99th percentile, or to the slowest call."""
    results = [result for result in results if result.variants]
    if not results:
        return
    panels = [
        (
            title_of(r.workload),
            [Row(v, f"{seconds(v.latency.p50)} · {_tail_or_p90(v.latency)}") for v in r.variants],
        )
        for r in results
    ]
    figure, all_axes = layout.stacked_panels(panels, ticks=True)
    for axes, result in zip(all_axes, results, strict=True):
        ends = [end for v in result.variants for end in (v.latency.p50, *_vertical_marks(v.latency))]
        log_axis(axes, "x", (min(ends), max(ends)), partial(seconds, written=short))
        for row, variant in enumerate(result.variants):
            latency, height = variant.latency, mark_height(row)
            marks = _vertical_marks(latency)
            axes.hlines(height, latency.p50, marks[-1], color=layout.colour_of(variant), linewidth=2.0)
            axes.plot([latency.p50], [height], markersize=6, clip_on=False, **layout.marker_of(variant))
            vertical: dict[str, Any] = {
                "linestyle": "none",
                "marker": "|",
                "color": layout.colour_of(variant),
                "clip_on": False,
            }
            axes.plot(marks, [height] * len(marks), markersize=8, **vertical)
    yield Plot(
        "latency",
        _latency_title([v.latency for r in results for v in engines_or_all(r.variants)]),
        "Seconds per call: a dot at the median, and vertical marks at p90 and at p99, or at the slowest call if fewer "
        f"than {CALLS_FOR_PERCENTILES} were timed. The axis is logarithmic.",
        figure,
    )


def _vertical_marks(latency: Latency) -> tuple[float, ...]:
    """Return the 90th percentile and, if known, the 99th percentile or the maximum, in seconds."""
    tail = latency.p99 if latency.supports_p99 else latency.maximum
    return (latency.p90,) if tail is None else (latency.p90, tail)


def _tail_or_p90(latency: Latency) -> str:
    """Format the tail, or the 90th percentile for older files, which do not have it."""
    return f"p90 {seconds(latency.p90)}" if latency.calls is None else tail_of(latency)


def _latency_title(latencies: Sequence[Latency]) -> str:
    """Return the title: the highest percentile that all variants support, or the slowest call, over the median."""
    if all(latency.supports_p99 for latency in latencies):
        ratios = factor_range(one.p99 / one.p50 for one in latencies)
        return f"One call in a hundred takes {ratios} the median or longer"
    longest = [one.maximum / one.p50 for one in latencies if one.maximum is not None]
    if len(longest) < len(latencies):
        return f"One call in ten takes {factor_range(one.p90 / one.p50 for one in latencies)} the median or longer"
    counts = sorted({one.calls for one in latencies if one.calls is not None})
    numbers = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"The slowest of {numbers} calls takes {factor_range(longest)} the median"
