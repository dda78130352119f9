"""Layout of plots: colours that colour-blind readers can distinguish, and rows that fit a phone."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jukebox_deploy.benchmarks.drawing.markup import printable
from jukebox_deploy.benchmarks.results import Backend, VariantResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE, INK, MUTED, TRACK = "#fffffe", "#1f2328", "#656d76", "#d8dee4"
PAGE_COLOURS = {PAGE: "--page", INK: "--ink", MUTED: "--muted", TRACK: "--track"}
"""The colours of a light page, and the CSS variables that replace them in a page."""

_SETTINGS: Any = {
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # so that dollar signs in names do not begin formulas
    "axes.edgecolor": TRACK,
    "axes.labelcolor": MUTED,
    "xtick.color": TRACK,
    "ytick.color": TRACK,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": TRACK,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}

# Mostly from the palettes of Okabe and Ito and of Paul Tol, which colour-blind readers can distinguish.
_COLOUR = {
    Backend.ONNXRUNTIME: "#0072b2",
    Backend.TENSORRT_RTX: "#cc79a7",
    Backend.TENSORRT: "#332288",
    Backend.EAGER: "#d55e00",
    Backend.EAGER_STATIC: "#e69f00",
    Backend.EAGER_RECORDED: "#b8860b",
    Backend.TORCH_COMPILE: "#8b1a1a",
    Backend.HUGGING_FACE: "#8c8c8c",
}
_COLOUR_BY_WEIGHTS = {
    (Backend.ONNXRUNTIME, "int8"): "#56b4e9",
    (Backend.ONNXRUNTIME, "int4"): "#009e73",
    (Backend.TENSORRT_RTX, "int8"): "#aa4499",
    (Backend.TENSORRT_RTX, "fp8"): "#aa4499",
    (Backend.TENSORRT_RTX, "int4"): "#117733",
    (Backend.TENSORRT, "int8"): "#6a5acd",
    (Backend.TENSORRT, "fp8"): "#6a5acd",
    (Backend.TENSORRT, "int4"): "#44aa99",
}
_MARKER = {"int8": "s", "fp8": "D", "int4": "^"}

WIDTH = 4.2  # inches; on a phone, letters are then about as large as those of the captions
_ROW, _TITLE, _TITLE_LINE, _TICKS = 0.4, 0.36, 0.15, 0.3  # inches
_NAME_AT, _MARK_AT = -0.2, 0.14  # distance below the middle of a row, in rows
_NAME_WIDTH = 48  # characters
_TITLE_WIDTH = 48  # characters


@dataclass(frozen=True)
class Plot:
    """A figure with its title and explanation."""

    name: str  # part of its file name
    title: str  # the main result
    note: str  # what was measured, and how to read the plot
    figure: Figure
    table: tuple[tuple[str, ...], ...] = ()  # headings, then rows; empty if another table of the page has the numbers


@dataclass(frozen=True)
class Row:
    """A row of a plot: the variant, whose name is written above its mark, and the value as text."""

    variant: VariantResult
    value: str


@contextmanager
def plot_style() -> Iterator[None]:
    """Apply the common style to figures that are made or saved in the block."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def colour_of(variant: VariantResult) -> str:
    """Return the colour of a variant, which depends on its backend and weight format only."""
    return _COLOUR_BY_WEIGHTS.get((variant.backend, variant.weights), _COLOUR[variant.backend])


def marker_of(variant: VariantResult) -> dict[str, Any]:
    """Return Matplotlib's marker options for a variant: shape by weight format, hollow for 16-bit arithmetic."""
    hollow = variant.precision in ("fp16", "bf16")
    return {
        "marker": _MARKER.get(variant.weights, "o"),
        "color": colour_of(variant),
        "markerfacecolor": "none" if hollow else colour_of(variant),
    }


def fitted_text(text: str, longest: int = _NAME_WIDTH) -> str:
    """Return a text for a plot: printable, and shortened to `longest` characters."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def stacked_panels(panels: Sequence[tuple[str, Sequence[Row]]], *, ticks: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels below each other: titles, and rows with the name and value of each variant.

    `panels`: title and rows of each; `ticks`: whether the panels have a labelled x axis.
    """
    from matplotlib.figure import Figure

    below = _TICKS if ticks else 0.0
    titles = [textwrap.fill(fitted_text(title, 2 * _TITLE_WIDTH), _TITLE_WIDTH) for title, _ in panels]
    heights = [
        _TITLE + _TITLE_LINE * title.count("\n") + _ROW * len(rows) + below
        for title, (_, rows) in zip(titles, panels, strict=True)
    ]
    total = sum(heights)
    figure = Figure(figsize=(WIDTH, total))
    top, all_axes = total, []
    for title, (_, rows), height in zip(titles, panels, heights, strict=True):
        bottom = (top - height + below) / total
        axes = figure.add_axes((0.02, bottom, 0.96, _ROW * len(rows) / total))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=7)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_visible(ticks)
        axes.tick_params(left=False, labelleft=False, bottom=ticks, labelbottom=ticks)
        for number, row in enumerate(rows):
            height, transform = number + _NAME_AT, axes.get_yaxis_transform()
            placement: dict[str, Any] = {"y": height, "va": "center", "transform": transform}
            # A background, so that grid lines do not cross the letters.
            placement["bbox"] = {"facecolor": PAGE, "edgecolor": "none", "pad": 0.5}
            axes.text(x=0.0, s=fitted_text(row.variant.name), ha="left", **placement)
            axes.text(x=1.0, s=row.value, ha="right", color=MUTED, **placement)
        all_axes.append(axes)
        top -= height
    return figure, all_axes


def mark_height(number: int) -> float:
    """Return the y coordinate of the mark of a row in `stacked_panels`."""
    return number + _MARK_AT


def log_axis(
    axes: Axes,
    which: Literal["x", "y"],
    ends: tuple[float, float],
    label: Callable[[float], str],
    ticks: Sequence[float] = (),
) -> None:
    """Make an axis logarithmic, with some room beyond the `ends` of the data and a grid line at each tick.

    `label`: formats the value of a tick; `ticks`: by default a few round numbers.
    """
    from matplotlib.ticker import NullLocator

    low, high = _widened(*ends)
    ticks = list(ticks) or round_numbers(low, high)
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks, [label(tick) for tick in ticks])
    axes.grid(axis=which)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Widen a range to at least a factor of two, so that noise does not fill the plot."""
    low, high = low / 1.12, high * 1.12
    missing = max(1.0, 2.0 / (high / low)) ** 0.5
    return low / missing, high * missing


def round_numbers(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, both positive: three to five of them, or fewer in a narrow range.

    If there is none, `low` is returned.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        numbers = (float(f"{m}e{decade}") for decade in decades for m in mantissas)
        found = [value for value in numbers if low <= value <= high]
        if len(found) >= 3:
            break
    return found[:: math.ceil(len(found) / 5)] if found else [low]
