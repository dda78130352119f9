"""How plots look: colours that colour-blind readers tell apart, and rows that fit a phone."""

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
"""The colours of a light page, and the variables by which a page replaces them."""

_SETTINGS: Any = {
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
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

# Okabe and Ito's palette; the whole numbers of an engine are neighbours in hue of its floating-point weights.
_COLOUR = {
    Backend.ONNXRUNTIME: "#0072b2",
    Backend.TENSORRT_RTX: "#cc79a7",
    Backend.EAGER: "#d55e00",
    Backend.EAGER_STATIC: "#e69f00",
    Backend.EAGER_RECORDED: "#b8860b",
    Backend.TORCH_COMPILE: "#8b1a1a",
    Backend.HUGGING_FACE: "#8c8c8c",
}
_COLOUR_OF_STORED = {
    (Backend.ONNXRUNTIME, "int8"): "#56b4e9",
    (Backend.ONNXRUNTIME, "int4"): "#009e73",
    (Backend.TENSORRT_RTX, "int8"): "#aa4499",
    (Backend.TENSORRT_RTX, "fp8"): "#aa4499",
    (Backend.TENSORRT_RTX, "int4"): "#117733",
}
_MARKER = {"int8": "s", "fp8": "D", "int4": "^"}

WIDTH = 4.2  # inches: at a phone's width, letters are about as large as the captions'
_ROW, _TITLE, _TITLE_LINE, _TICKS = 0.4, 0.36, 0.15, 0.3  # inches
_NAME_AT, _MARK_AT = -0.2, 0.14  # rows, from a row's middle downwards
_LONGEST_NAME = 48
_TITLE_WIDTH = 48  # characters


@dataclass(frozen=True)
class Plot:
    """A figure with what it shows in a sentence."""

    name: str  # of its file
    title: str  # what is seen
    note: str  # what was measured, and how to read it
    figure: Figure
    table: tuple[tuple[str, ...], ...] = ()  # headings and rows, where no other table has the numbers


@dataclass(frozen=True)
class Row:
    """What is written above a mark."""

    variant: VariantResult
    value: str


@contextmanager
def house_style() -> Iterator[None]:
    """Figures made and written inside look alike."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def colour_of(variant: VariantResult) -> str:
    """The same for a backend and a storage of weights in every plot and table."""
    return _COLOUR_OF_STORED.get((variant.backend, variant.weights), _COLOUR[variant.backend])


def marker_of(variant: VariantResult) -> dict[str, Any]:
    """Shape by storage of weights; hollow for 16-bit arithmetic."""
    hollow = variant.precision in ("fp16", "bf16")
    return {
        "marker": _MARKER.get(variant.weights, "o"),
        "color": colour_of(variant),
        "markerfacecolor": "none" if hollow else colour_of(variant),
    }


def shown(text: str, longest: int = _LONGEST_NAME) -> str:
    """A text of a file as it fits a plot."""
    text = printable(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def stacked_panels(panels: Sequence[tuple[str, Sequence[Row]]], *, ticks: bool) -> tuple[Figure, list[Axes]]:
    """One panel below the other: a title each, and a row for each variant with its name and value."""
    from matplotlib.figure import Figure

    below = _TICKS if ticks else 0.0
    titles = [textwrap.fill(shown(title, 2 * _TITLE_WIDTH), _TITLE_WIDTH) for title, _ in panels]
    heights = [
        _TITLE + _TITLE_LINE * title.count("\n") + _ROW * len(rows) + below
        for title, (_, rows) in zip(titles, panels, strict=True)
    ]
    total = sum(heights)
    figure = Figure(figsize=(WIDTH, total))
    top, made = total, []
    for title, (_, rows), height in zip(titles, panels, heights, strict=True):
        bottom = (top - height + below) / total
        axes = figure.add_axes((0.02, bottom, 0.96, _ROW * len(rows) / total))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=7)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_visible(ticks)
        axes.tick_params(left=False, labelleft=False, bottom=ticks, labelbottom=ticks)
        for number, row in enumerate(rows):
            at: dict[str, Any] = {"y": number + _NAME_AT, "va": "center", "transform": axes.get_yaxis_transform()}
            at["bbox"] = {"facecolor": PAGE, "edgecolor": "none", "pad": 0.5}  # lines stop at letters
            axes.text(x=0.0, s=shown(row.variant.name), ha="left", **at)
            axes.text(x=1.0, s=row.value, ha="right", color=MUTED, **at)
        made.append(axes)
        top -= height
    return figure, made


def mark_height(number: int) -> float:
    """Where the mark of a row is."""
    return number + _MARK_AT


def log_axis(
    axes: Axes,
    which: Literal["x", "y"],
    ends: tuple[float, float],
    written: Callable[[float], str],
    at: Sequence[float] = (),
) -> None:
    """Make the `x` or `y` axis logarithmic, with room beyond its ends, and lines at a few round numbers or `at`."""
    from matplotlib.ticker import NullLocator

    low, high = _widened(*ends)
    ticks = list(at) or round_numbers(low, high)
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks, [written(tick) for tick in ticks])
    axes.grid(axis=which)


def _widened(low: float, high: float) -> tuple[float, float]:
    """At least a factor of two, so that noise does not fill a plot."""
    low, high = low / 1.12, high * 1.12
    missing = max(1.0, 2.0 / (high / low)) ** 0.5
    return low / missing, high * missing


def round_numbers(low: float, high: float) -> list[float]:
    """Between three and five round numbers from `low` to `high`, both above zero, where there are as many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        numbers = (float(f"{m}e{decade}") for decade in decades for m in mantissas)
        found = [value for value in numbers if low <= value <= high]
        if len(found) >= 3:
            break
    return found[:: math.ceil(len(found) / 5)] if found else [low]
