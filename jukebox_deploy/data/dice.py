"""Random choices as a function of their place, so that song 7 is the same whoever makes it and whatever else is made.

NumPy keeps the streams of its bit generators fixed, but not those of its distributions: everything here is made from
the raw 64-bit numbers of Philox.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Item = TypeVar("_Item")


class Stream(IntEnum):
    """What the numbers are for; each has numbers of its own."""

    ORDER = 0
    OUTLINE = 1
    MUSIC = 2
    SOUND = 3
    EPOCH = 4
    EXAMPLE = 5


class Dice:
    """The choices at one place, such as (seed, stream, song)."""

    def __init__(self, seed: int, stream: Stream, *place: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(stream, *place)))

    def uniform(self) -> float:
        """A number from 0 on, below 1."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def choice(self, items: Sequence[_Item]) -> _Item:
        """One of the items, each as likely as the others."""
        return items[self.whole(0, len(items) - 1)]

    def shuffled(self, items: Sequence[_Item]) -> list[_Item]:
        """The items in random order."""
        rest = list(items)
        return [rest.pop(self.whole(0, len(rest) - 1)) for _ in items]

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Raw 64-bit numbers `[count]`."""
        return self._bits.random_raw(count)

    def noise(self, count: int) -> npt.NDArray[np.float64]:
        """White noise `[count]`, evenly distributed between -1 and 1."""
        whole = (self._bits.random_raw(count) >> np.uint64(11)).astype(np.float64)
        return whole * 2.0**-52 - 1.0
