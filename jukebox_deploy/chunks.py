"""A long song in chunks with the context they need, so that memory does not grow with it (specification 2.7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.receptive_field import ReceptiveField, encoder_receptive_field


@dataclass(frozen=True)
class Chunk:
    """Codes `first` to `last - 1` are wanted; the network is given `outer_first` to `outer_last - 1`."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def inner(self, hop_length: int = 1) -> slice:
        """Where the wanted part lies in the network's result, with that many results per code."""
        return slice((self.first - self.outer_first) * hop_length, (self.last - self.outer_first) * hop_length)

    def outer(self, hop_length: int = 1) -> slice:
        """Where what the network is given lies in the song, with that many positions per code."""
        return slice(self.outer_first * hop_length, self.outer_last * hop_length)


def plan_chunks(total: int, length: int, field: ReceptiveField) -> Iterator[Chunk]:
    """Cut `total` codes into chunks of `length` with the context they need, in codes."""
    for first in range(0, total, length):
        last = min(first + length, total)
        yield Chunk(first, last, max(0, first - field.before), min(total, last + field.after))


def encoder_context(vqvae: VQVAEConfig, level: int) -> ReceptiveField:
    """Codes of audio that a chunk to encode needs on either side, rounded up: it begins and ends where codes do."""
    hop = vqvae.hop_length(level)
    samples = encoder_receptive_field(vqvae, level)
    return ReceptiveField(-(-samples.before // hop), max(0, -(-(samples.after + 1 - hop) // hop)))
