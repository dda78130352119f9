"""Which examples make up a batch: a function of seed, step and process, with no state to save.

The examples of a run are numbered through all its epochs. Step `s` has the next `workers * batch`
numbers, process `r` the r-th `batch` of them: so all processes together see what one process with
their batches in one would see, and a run goes on anywhere by asking for another step.
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
    """The order in which one process of several meets `count` examples, epoch after epoch."""

    count: int
    batch: int  # examples per step and process
    seed: int
    rank: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch: expected 1 or more, found {self.batch}.")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed: expected a whole number from 0 to 2^64 - 1, found {self.seed}.")
        if not 0 <= self.rank < self.workers:
            raise ConfigError(f"rank: expected 0 to {self.workers - 1} of {self.workers} processes, found {self.rank}.")

    @property
    def batches_per_epoch(self) -> int:
        """Steps after which every example was met; the last of them may begin the next epoch."""
        return -(-self.count // (self.batch * self.workers))

    def numbers(self, step: int) -> range:
        """The numbers of a step's examples, counted from the beginning of the run."""
        if step < 0:
            raise ConfigError(f"step: expected 0 or more, found {step}.")
        first = (step * self.workers + self.rank) * self.batch
        return range(first, first + self.batch)

    def examples(self, numbers: range) -> npt.NDArray[np.int64]:
        """The examples that stand at these numbers, `[len(numbers)]`; each epoch is in an order of its own."""
        epochs, positions = np.divmod(np.array(numbers, np.int64), self.count)
        examples = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            examples[chosen] = shuffled(positions[chosen], self.count, Dice(self.seed, Stream.EPOCH, int(epoch)))
        return examples


def shuffled(positions: npt.NDArray[np.int64], count: int, dice: Dice) -> npt.NDArray[np.int64]:
    """What stands at `positions` of a random permutation of `0 … count - 1`, without making all of it.

    The swap-or-not shuffle (Hoang, Morris, Rogaway, "An enciphering scheme based on a card shuffle",
    2012): in each round every item changes places with its mirror image about a random pivot, or
    does not, as a hash of the pair decides.
    """
    items = positions
    for pivot, key in dice.words(2 * _ROUNDS).reshape(_ROUNDS, 2):
        mirrored = (int(pivot) % count - items) % count
        pair = np.maximum(items, mirrored).astype(np.uint64)
        items = np.where(_hash(pair ^ key) >> np.uint64(63), mirrored, items)
    return items


def _hash(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64: every bit of the input changes every bit of the output."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
