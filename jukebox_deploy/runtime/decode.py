"""Codes to audio and audio to codes, chunk by chunk: memory does not grow with the song.

Every chunk gets as much context as the VQ-VAE's receptive field asks for, so that the result is
that of one pass over the whole song up to float rounding; zero padding acts only at its true ends
(specification 2.7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import AudioError, EngineError, SamplingError
from jukebox_deploy.receptive_field import ReceptiveField, decoder_receptive_field, encoder_receptive_field

CHUNK_SECONDS = 10.0


@dataclass(frozen=True)
class Chunk:
    """Codes `first` to `last - 1` are wanted; the graph is given `outer_first` to `outer_last - 1`."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def inner(self, hop_length: int = 1) -> slice:
        """Where the wanted part lies in the graph's result, with that many results per code."""
        return slice((self.first - self.outer_first) * hop_length, (self.last - self.outer_first) * hop_length)


def plan_chunks(total: int, length: int, field: ReceptiveField) -> Iterator[Chunk]:
    """Cut `total` codes into chunks of `length` with the context they need, in codes."""
    for first in range(0, total, length):
        last = min(first + length, total)
        yield Chunk(first, last, max(0, first - field.before), min(total, last + field.after))


def decode_codes(
    engine: Engine, level: int, codes: np.ndarray, chunk_seconds: float = CHUNK_SECONDS
) -> Iterator[np.ndarray]:
    """Decode codes `[T]` of a level into audio, float32 chunks that add up to `[hop * T]` samples."""
    if len(codes) == 0:
        raise SamplingError(f"level {level} has no codes yet, so there is nothing to decode.")
    vqvae = engine.config.vqvae
    decoder = engine.runner(GraphKind.VQVAE_DECODE, level)
    field = decoder_receptive_field(vqvae, level)
    hop = vqvae.hop_length(level)

    def decode(chunk: Chunk) -> np.ndarray:
        part = codes[chunk.outer_first : chunk.outer_last].astype(np.int64)
        return decoder({"codes": part[None]})["audio"][0, 0, chunk.inner(hop)]

    chunks = plan_chunks(len(codes), _chunk_length(engine, decoder.spec, field, chunk_seconds), field)
    yield from _in_order(decode, chunks, decoder.concurrent_calls)


def encode_audio(engine: Engine, level: int, audio: np.ndarray, chunk_seconds: float = CHUNK_SECONDS) -> np.ndarray:
    """Encode audio `[hop * T]` in [-1, 1] into the codes of a level, int64 `[T]`."""
    vqvae = engine.config.vqvae
    hop = vqvae.hop_length(level)
    if len(audio) == 0 or len(audio) % hop:
        raise AudioError(f"{len(audio)} samples are not a whole number of codes of level {level}, {hop} samples each.")
    encoder = engine.runner(GraphKind.VQVAE_ENCODE, level)
    samples = encoder_receptive_field(vqvae, level)
    # In codes, rounded up: a chunk must begin and end where a code does.
    field = ReceptiveField(-(-samples.before // hop), max(0, -(-(samples.after + 1 - hop) // hop)))

    def encode(chunk: Chunk) -> np.ndarray:
        part = audio[chunk.outer_first * hop : chunk.outer_last * hop].astype(np.float32)
        return encoder({"audio": part[None, None]})["codes"][0, chunk.inner()]

    chunks = plan_chunks(len(audio) // hop, _chunk_length(engine, encoder.spec, field, chunk_seconds), field)
    return np.concatenate(list(_in_order(encode, chunks, encoder.concurrent_calls))).astype(np.int64)


def _in_order(work: Callable[[Chunk], np.ndarray], chunks: Iterable[Chunk], at_once: int) -> Iterator[np.ndarray]:
    """The results of all chunks, so many of which are worked on at once; no more than that wait to be taken."""
    if at_once == 1:
        yield from map(work, chunks)
        return
    pool = ThreadPoolExecutor(at_once)
    waiting: deque[Future[np.ndarray]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) == at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk_length(engine: Engine, spec: GraphSpec, field: ReceptiveField, seconds: float) -> int:
    """Codes per chunk: about that many seconds, context included at most what the graph takes."""
    vqvae = engine.config.vqvae
    wanted = max(1, int(seconds * vqvae.sample_rate / vqvae.hop_length(spec.level)))
    longest = next(r.maximum for r in spec.ranges if r.symbol == "T")
    room = longest - field.before - field.after
    if room < 1:
        raise EngineError(
            f"{spec.name} takes at most {longest} codes at once, but {field.before} before and {field.after} after "
            "a code are needed to work in chunks. Export it with a longer range."
        )
    return min(wanted, room)
