"""Decoding of codes to audio and encoding of audio to codes, in chunks so that memory does not grow with the song.

Every chunk is processed with as much context as the VQ-VAE's receptive field needs, so the result equals one pass over
the whole song up to float rounding. Zero padding takes effect only at the true ends of the song (specification 2.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jukebox_deploy.chunks import Chunk, encoder_context, plan_chunks
from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import AudioError, EngineError, SamplingError
from jukebox_deploy.receptive_field import ReceptiveField, decoder_receptive_field
from jukebox_deploy.threads import map_in_threads

DECODED_SECONDS = 10.0
"""Default seconds of audio that one chunk of codes is decoded to."""

ENCODED_SECONDS = 7.5
"""Default seconds of audio in one chunk to encode. Most of the memory holds the distances from each position to every
code of the codebook: 2.7 GB for two concurrent chunks at level 0 of a released model. Chunks of ten seconds needed
6.1 GB and were no faster (docs/log.md)."""


def decode_codes(
    engine: Engine, level: int, codes: np.ndarray, chunk_seconds: float = DECODED_SECONDS
) -> Iterator[np.ndarray]:
    """Decode codes `[T]` of a level into audio; yield float32 chunks that add up to `[hop * T]` samples."""
    if len(codes) == 0:
        raise SamplingError(f"level {level} has no codes yet, so there is nothing to decode; sample it first.")
    vqvae = engine.config.vqvae
    decoder = engine.runner(GraphKind.VQVAE_DECODE, level)
    field = decoder_receptive_field(vqvae, level)
    hop = vqvae.hop_length(level)

    def decode(chunk: Chunk) -> np.ndarray:
        part = codes[chunk.outer()].astype(np.int64)
        return decoder({"codes": part[None]})["audio"][0, 0, chunk.inner(hop)]

    chunks = plan_chunks(len(codes), _chunk_length(engine, decoder.spec, field, chunk_seconds, len(codes)), field)
    yield from _in_order(decode, chunks, decoder.concurrent_calls)


def encode_audio(engine: Engine, level: int, audio: np.ndarray, chunk_seconds: float = ENCODED_SECONDS) -> np.ndarray:
    """Encode audio `[hop * T]` in [-1, 1] into the codes of a level, int64 `[T]`."""
    vqvae = engine.config.vqvae
    hop = vqvae.hop_length(level)
    if len(audio) == 0 or len(audio) % hop:
        raise AudioError(
            f"{len(audio)} samples are not a whole number of codes of level {level}, which has {hop} samples per code; "
            "give a positive multiple of that."
        )
    encoder = engine.runner(GraphKind.VQVAE_ENCODE, level)
    field = encoder_context(vqvae, level)

    def encode(chunk: Chunk) -> np.ndarray:
        part = audio[chunk.outer(hop)].astype(np.float32)
        return encoder({"audio": part[None, None]})["codes"][0, chunk.inner()]

    total = len(audio) // hop
    chunks = plan_chunks(total, _chunk_length(engine, encoder.spec, field, chunk_seconds, total), field)
    return np.concatenate(list(_in_order(encode, chunks, encoder.concurrent_calls))).astype(np.int64)


def _in_order(work: Callable[[Chunk], np.ndarray], chunks: Iterable[Chunk], at_once: int) -> Iterator[np.ndarray]:
    """Yield the results of all chunks in order, with `at_once` chunks in progress or waiting to be consumed."""
    return map(work, chunks) if at_once == 1 else map_in_threads(work, chunks, threads=at_once, ahead=at_once - 1)


def _chunk_length(engine: Engine, spec: GraphSpec, field: ReceptiveField, seconds: float, total: int) -> int:
    """Return the codes per chunk for about `seconds` of audio; with its context, a chunk fits the graph's range.

    `total` codes that fit as a whole need no context. Raises `EngineError` where not even one code fits with its own.
    """
    vqvae = engine.config.vqvae
    wanted = max(1, int(seconds * vqvae.sample_rate / vqvae.hop_length(spec.level)))
    longest = spec.range("T").maximum
    room = longest - field.before - field.after
    if room < 1 and total <= longest:
        return total
    if room < 1:
        raise EngineError(
            f"{spec.name} takes at most {longest} codes at once, but to work in chunks, each code needs "
            f"{field.before} codes of context before it and {field.after} after it. Export the graph with a longer "
            "range."
        )
    return min(wanted, room)
