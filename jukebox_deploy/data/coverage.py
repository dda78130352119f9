"""Songs covered by windows of one length, each of which may be shifted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Place:
    """Where a window lies."""

    song: int
    start: int


class Coverage:
    """As few windows as cover every song, evenly spread over it."""

    def __init__(self, lengths: Sequence[int], window: int, unit: int = 1) -> None:
        """`lengths` of songs are `window` or more; `window` and all starts are multiples of `unit`."""
        self._window = window // unit
        self._lasts = np.array(lengths, np.int64) // unit - self._window  # last start of each song
        self._counts = -(-(self._lasts + self._window) // self._window)
        self._ends = np.cumsum(self._counts)
        self._unit = unit

    @property
    def count(self) -> int:
        """Windows of all songs."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def place(self, index: int, uniform: float | None = None) -> Place:
        """The window `index`, or with a `uniform` number (0 to below 1) one shifted by up to half a window.

        All starts that lie within half a window of the window's own, and in the song, are equally likely.
        """
        song = int(np.searchsorted(self._ends, index, side="right"))
        last, count = int(self._lasts[song]), int(self._counts[song])
        number = index - int(self._ends[song]) + count
        start = last * number // (count - 1) if count > 1 else 0
        if uniform is not None:
            low, high = max(start - self._window // 2, 0), min(start + self._window // 2, last)
            start = low + int(uniform * (high - low + 1))
        return Place(song, start * self._unit)
