"""Even selection: the windows of one length that cover songs, and a few of many items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Place:
    """Position of a window: index of its song, and its start in the song."""

    song: int
    start: int


class Coverage:
    """The smallest number of windows that cover every song, spread evenly over it."""

    def __init__(self, lengths: Sequence[int], window: int, unit: int = 1) -> None:
        """Divide songs into windows.

        The `lengths` of the songs must be at least `window`, which must be a multiple of `unit`, as all starts will be.
        """
        self._window = window // unit
        self._lasts = np.array(lengths, np.int64) // unit - self._window  # last start of each song
        self._counts = -(-(self._lasts + self._window) // self._window)
        self._ends = np.cumsum(self._counts)
        self._unit = unit

    @property
    def count(self) -> int:
        """Number of windows of all songs."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int, uniform: float | None = None) -> Place:
        """Return the place of window `index`, shifted by up to half a window if a number `uniform` in [0, 1) is given.

        All starts within half a window of the unshifted one, and within the song, are equally likely.
        """
        song = int(np.searchsorted(self._ends, index, side="right"))
        last, count = int(self._lasts[song]), int(self._counts[song])
        number = index - int(self._ends[song]) + count
        start = last * number // (count - 1) if count > 1 else 0
        if uniform is not None:
            low, high = max(start - self._window // 2, 0), min(start + self._window // 2, last)
            start = low + int(uniform * (high - low + 1))
        return Place(song, start * self._unit)


def spread_indices(total: int, count: int) -> list[int]:
    """Return up to `count` different indices from 0 to `total - 1`, evenly spread and in order."""
    indices: list[int] = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)).tolist()
    return indices
