"""Random choices as a pure function of their place.

So song 7 of a corpus, for example, is the same whichever process makes it and whichever other songs are made. NumPy
guarantees to keep the streams of its bit generators, but not those of its distributions, so everything here is derived
from the raw 64-bit numbers of Philox.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Item = TypeVar("_Item")


class Stream(IntEnum):
    """Purpose of random numbers; each purpose has an independent stream."""

    ORDER = 0
    OUTLINE = 1
    MUSIC = 2
    SOUND = 3
    EPOCH = 4
    EXAMPLE = 5


class Dice:
    """Generator of the random choices at one place, such as (seed, stream, song)."""

    def __init__(self, seed: int, stream: Stream, *place: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=(stream, *place)))

    def uniform(self) -> float:
        """Draw a number in [0, 1)."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def whole(self, low: int, high: int) -> int:
        """Draw an integer from `low` to `high`, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def choice(self, items: Sequence[_Item]) -> _Item:
        """Draw one of the items, all equally likely."""
        return items[self.whole(0, len(items) - 1)]

    def shuffled(self, items: Sequence[_Item]) -> list[_Item]:
        """Return the items in random order."""
        rest = list(items)
        return [rest.pop(self.whole(0, len(rest) - 1)) for _ in items]

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Draw raw 64-bit numbers `[count]`."""
        return self._bits.random_raw(count)

    def noise(self, count: int) -> npt.NDArray[np.float64]:
        """Draw white noise `[count]`, uniform in [-1, 1)."""
        whole = (self._bits.random_raw(count) >> np.uint64(11)).astype(np.float64)
        return whole * 2.0**-52 - 1.0
