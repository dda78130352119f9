"""Plots of sweeps: how cost grows along one field of a workload, with a line per variant."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from jukebox_deploy.benchmarks.drawing import plot_layout as layout
from jukebox_deploy.benchmarks.drawing.plot_layout import Plot, log_axis
from jukebox_deploy.benchmarks.drawing.words import axis_name, factor_range, title_of, work_of
from jukebox_deploy.benchmarks.results import VariantResult
from jukebox_deploy.benchmarks.workload_groups import Axis, Sweep, engines_or_all
from jukebox_deploy.quantities import NOT_MEASURED, seconds, short, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEIGHT, _ABOVE, _BELOW, _LEFT, _LEGEND_ROW = 2.3, 0.1, 0.5, 0.6, 0.2  # inches
_MAX_TICKS = 8  # for more values, the axis has ticks at round numbers instead
_POWER = {Axis.WIDTH: 2}  # the weights of a layer grow with the square of the width
_FLAT = (Axis.POSITION,)  # no growth is expected; drawn on linear axes, from zero

_ENDS = {
    Axis.SLOTS: "From {} to {} slots",
    Axis.POSITION: "From position {} to {}",
    Axis.WIDTH: "From width {} to {}",
    Axis.DEPTH: "From {} to {} layers",
    Axis.CONTEXT: "From a context of {} to {} tokens",
    Axis.LENGTH: "From {} to {} s of audio",
    Axis.SONGS: "From {} to {} songs",
}

_ONE_MORE = {Axis.DEPTH: "per layer", Axis.LENGTH: "per s of audio", Axis.SONGS: "per song"}
"""Axes along which the cost should be a straight line, and the name of its slope."""


def sweep_plot(sweep: Sweep, name: str) -> Plot:
    """Plot the cost against the field of the sweep; `name`: of the plot's file."""
    variants = sweep.variants
    figure, axes = _empty_figure(legend_rows=len(variants) + (sweep.axis not in _FLAT))
    for variant in variants:
        _draw_variant(axes, sweep, variant)
    medians = [cost.median for variant in variants for _, cost in sweep.costs(variant.name)]
    proportion = proportion_of(sweep.axis, _ends(sweep))
    if proportion is None:
        axes.set_ylim(0.0, 1.1 * max(medians))
        axes.grid()
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.yaxis.set_major_formatter(lambda value, _: seconds(value, short))
    else:
        _draw_proportion(axes, sweep, proportion)
        values = sweep.values
        log_axis(axes, "x", (values[0], values[-1]), short, values if len(values) <= _MAX_TICKS else ())
        log_axis(axes, "y", (min(medians), max(medians)), partial(seconds, written=short))
    axes.set_xlabel(axis_name(sweep.axis))
    below = _BELOW / _HEIGHT
    axes.legend(loc="upper left", bbox_to_anchor=(-_LEFT / layout.WIDTH, -below), frameon=False, borderpad=0.0)
    return Plot(name, sweep_title(sweep), _note(sweep), figure, tuple(_table_rows(sweep)))


def sweep_title(sweep: Sweep) -> str:
    """Return the title: how much the cost grows, for the engines that were measured at both ends of the sweep."""
    complete = [variant for variant in sweep.variants if sweep.is_whole(variant.name)]
    work, ends = work_of(sweep.results[0].workload.kind), words_for(sweep.axis, _ends(sweep))
    if not complete:
        return f"{ends}: what {work} costs"
    growth = factor_range(sweep.growth(variant.name) for variant in engines_or_all(complete))
    return f"{ends}, {work} costs {growth} as much"


def words_for(axis: Axis, ends: tuple[float, float]) -> str:
    """Return the phrase for the first and the last value of an axis, `From 1 to 64 slots`."""
    return _ENDS[axis].format(*map(short, ends))


def proportion_of(axis: Axis, ends: tuple[float, float]) -> float | None:
    """Return the growth of a cost that is proportional to the field (to its square for the width).

    `None` for an axis along which no growth is expected.
    """
    if axis in _FLAT:
        return None
    return (ends[1] / ends[0]) ** _POWER.get(axis, 1)


def one_more_of(sweep: Sweep) -> str | None:
    """Return the name of the slope, for instance `per layer`; `None` unless the cost should be a straight line."""
    return _ONE_MORE.get(sweep.axis)


def _ends(sweep: Sweep) -> tuple[float, float]:
    return sweep.values[0], sweep.values[-1]


def _growth_of(sweep: Sweep, variant: VariantResult) -> str:
    """Format a variant's growth, with its first and last value if they are not those of the sweep."""
    growth = times(sweep.growth(variant.name))
    first, last = map(short, sweep.ends(variant.name))
    return growth if sweep.is_whole(variant.name) else f"{growth}, {first} to {last}"


def _table_rows(sweep: Sweep) -> Iterator[tuple[str, ...]]:
    """Yield the headings of the table, then a row per variant."""
    one_more = one_more_of(sweep)
    yield (axis_name(sweep.axis), *(short(v) for v in sweep.values), "growth", *([one_more] if one_more else []))
    for variant in sweep.variants:
        costs = dict(sweep.costs(variant.name))
        cells = [seconds(costs[value].median) if value in costs else NOT_MEASURED for value in sweep.values]
        slope = [seconds(sweep.slope(variant.name))] if one_more else []
        yield (variant.name, *cells, _growth_of(sweep, variant), *slope)


def _note(sweep: Sweep) -> str:
    workload = sweep.results[0].workload
    axes = "The time axis starts at zero." if sweep.axis in _FLAT else "Both axes are logarithmic."
    runs = f" Measured in {', '.join(sweep.runs)}." if any(sweep.runs) else ""
    return (
        f"{title_of(workload, without=sweep.axis)}: the time that {work_of(workload.kind)} takes, for all slots "
        "together. Marks are medians of the rounds, with a line over the middle half of the rounds; in brackets is the "
        f"growth from the first to the last value. {axes}{runs}"
    )


def _empty_figure(legend_rows: int) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    total = _HEIGHT + _ABOVE + _BELOW + _LEGEND_ROW * legend_rows
    figure = Figure(figsize=(layout.WIDTH, total))
    left = _LEFT / layout.WIDTH
    axes = figure.add_axes((left, 1.0 - (_HEIGHT + _ABOVE) / total, 0.97 - left, _HEIGHT / total))
    axes.spines[["right", "top"]].set_visible(False)
    return figure, axes


def _draw_variant(axes: Axes, sweep: Sweep, variant: VariantResult) -> None:
    costs = sweep.costs(variant.name)
    medians = [cost.median for _, cost in costs]
    below = [cost.median - cost.lower_quartile for _, cost in costs]
    above = [cost.upper_quartile - cost.median for _, cost in costs]
    axes.errorbar(
        [value for value, _ in costs],
        medians,
        yerr=[below, above],
        linewidth=1.4,
        markersize=5,
        label=f"{layout.fitted_text(variant.name)} ({_growth_of(sweep, variant)})",
        **layout.marker_of(variant),
    )


def _draw_proportion(axes: Axes, sweep: Sweep, growth: float) -> None:
    """Draw the line of proportional growth, which begins at the highest first cost of any variant."""
    begin = max(sweep.costs(variant.name)[0][1].median for variant in sweep.variants)
    label = "as the square" if sweep.axis in _POWER else "in proportion"
    axes.plot(
        [sweep.values[0], sweep.values[-1]],
        [begin, begin * growth],
        color=layout.MUTED,
        linewidth=1.0,
        linestyle=":",
        label=f"{label} ({times(growth)})",
    )
