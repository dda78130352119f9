"""Selection of the examples of a batch as a function of seed, step and process, with no state to save.

The examples of a run are numbered consecutively through all epochs. Step `s` takes the next `workers * batch` numbers,
and process `r` takes the r-th `batch` of them. So all processes together see the same examples as a single process with
the joint batch would, and a run can resume at any step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.errors import ConfigError

_ROUNDS = 64


@dataclass(frozen=True)
class ExampleOrder:
    """Order in which one of several processes sees `count` examples, epoch after epoch."""

    count: int
    batch: int  # examples per step and process
    seed: int
    rank: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch: expected 1 or more, found {self.batch}.")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed: expected an integer from 0 to 2^64 - 1, found {self.seed}.")
        if not 0 <= self.rank < self.workers:
            raise ConfigError(f"rank: expected 0 to {self.workers - 1} of {self.workers} processes, found {self.rank}.")

    @property
    def batches_per_epoch(self) -> int:
        """Number of steps after which every example has been seen; the last step may reach into the next epoch."""
        return -(-self.count // (self.batch * self.workers))

    def numbers(self, step: int) -> range:
        """Return the numbers of a step's examples, counted from the beginning of the run."""
        if step < 0:
            raise ConfigError(f"step: expected 0 or more, found {step}.")
        first = (step * self.workers + self.rank) * self.batch
        return range(first, first + self.batch)

    def examples(self, numbers: range) -> npt.NDArray[np.int64]:
        """Return the examples at these numbers, `[len(numbers)]`; each epoch has its own random order."""
        epochs, positions = np.divmod(np.array(numbers, np.int64), self.count)
        examples = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            examples[chosen] = shuffled(positions[chosen], self.count, Dice(self.seed, Stream.EPOCH, int(epoch)))
        return examples


def shuffled(positions: npt.NDArray[np.int64], count: int, dice: Dice) -> npt.NDArray[np.int64]:
    """Return the items at `positions` of a random permutation of `0 … count - 1` without computing all of it.

    This is the swap-or-not shuffle (Hoang, Morris, Rogaway, "An enciphering scheme based on a card shuffle", 2012): in
    each round, every item is swapped with its mirror image about a random pivot or not, depending on a hash of the
    pair.
    """
    items = positions
    for pivot, key in dice.words(2 * _ROUNDS).reshape(_ROUNDS, 2):
        mirrored = (int(pivot) % count - items) % count
        pair = np.maximum(items, mirrored).astype(np.uint64)
        items = np.where(_hash(pair ^ key) >> np.uint64(63), mirrored, items)
    return items


def _hash(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64: every bit of the input affects every bit of the output."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
