"""A picture of an alignment: attention over time and characters, and the words at their times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.files import atomic_path
from jukebox_deploy.jobs.alignment.song_alignment import SongAlignment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_COLUMNS = 2000  # more codes than pixels would not be visible
_LABELLED = 40  # lines of lyrics; more would overlap
_LETTERS = 32  # of a line's label


def write_alignment_picture(path: Path, attention: np.ndarray, alignment: SongAlignment, title: str) -> None:
    """Draw an alignment as PNG: time to the right, the lyrics downwards, each sung word as a stroke.

    `attention` is `[codes, characters]`.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    labels = _line_labels(alignment)
    figure = Figure(figsize=(12, 3 + 0.16 * len(labels)), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        _columns(attention).T,
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, alignment.seconds, len(alignment.characters), 0.0),
        cmap="magma",
        norm=PowerNorm(0.5, vmin=0.0),  # so that weak attention stays visible
    )
    _draw_words(axes, alignment)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=7)
    axes.set(xlabel="time (s)", xlim=(0.0, alignment.seconds), ylim=(len(alignment.characters), 0.0))
    axes.set_title(title, parse_math=False)
    figure.colorbar(image, ax=axes, label="attention")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _columns(attention: np.ndarray) -> np.ndarray:
    """Reduce codes to a limited number of stretches, by the maximum of each: `[stretches, characters]`."""
    stretch = -(-len(attention) // _MAX_COLUMNS)
    return np.maximum.reduceat(attention, range(0, len(attention), stretch), axis=0)


def _line_labels(alignment: SongAlignment) -> Mapping[int, str]:
    """Return where lines of the lyrics begin, and their beginnings; only some if there are many."""
    begins: dict[int, int] = {}
    for sung in alignment.words:
        begins.setdefault(sung.word.line, sung.word.first)
    firsts = list(begins.values())
    shown = firsts[:: -(-len(firsts) // _LABELLED)]
    return {first: alignment.characters[first : first + _LETTERS].partition("\n")[0] for first in shown}


def _draw_words(axes: Axes, alignment: SongAlignment) -> None:
    for sung in alignment.sung:
        times = [alignment.time_of(sung.codes.start), alignment.time_of(sung.codes.stop)]
        axes.plot(times, [sung.word.first, sung.word.stop], color="cyan", linewidth=1.0)
