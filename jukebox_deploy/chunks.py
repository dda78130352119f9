"""Division of a song into chunks with context, so that memory does not grow with its length (specification 2.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.receptive_field import ReceptiveField, encoder_receptive_field


@dataclass(frozen=True)
class Chunk:
    """A chunk of codes `[first, last)`, and the codes `[outer_first, outer_last)` given to the network as context."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def inner(self, hop_length: int = 1) -> slice:
        """Slice of the network's output that belongs to the chunk, with `hop_length` outputs per code."""
        return slice((self.first - self.outer_first) * hop_length, (self.last - self.outer_first) * hop_length)

    def outer(self, hop_length: int = 1) -> slice:
        """Slice of the song to give to the network, with `hop_length` positions per code."""
        return slice(self.outer_first * hop_length, self.outer_last * hop_length)


def plan_chunks(total: int, length: int, field: ReceptiveField) -> Iterator[Chunk]:
    """Cut `total` codes into chunks of `length`, with the context of `field`; all numbers count codes."""
    for first in range(0, total, length):
        last = min(first + length, total)
        yield Chunk(first, last, max(0, first - field.before), min(total, last + field.after))


def encoder_context(vqvae: VQVAEConfig, level: int) -> ReceptiveField:
    """Return the context that encoding needs on either side of a chunk, in codes.

    It is rounded up from samples, because chunks begin and end at the boundaries of codes.
    """
    hop = vqvae.hop_length(level)
    samples = encoder_receptive_field(vqvae, level)
    return ReceptiveField(-(-samples.before // hop), max(0, -(-(samples.after + 1 - hop) // hop)))
