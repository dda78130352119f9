"""Codes to audio and audio to codes, chunk by chunk: memory does not grow with the song.

Every chunk gets as much context as the VQ-VAE's receptive field asks for, so that the result is
that of one pass over the whole song up to float rounding; zero padding acts only at its true ends
(specification 2.7).
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
"""Of sound that a chunk of codes becomes."""

ENCODED_SECONDS = 7.5
"""Of sound in a chunk to encode. Memory is mostly distances, of each position to every code of a codebook: 2.7 GB for
two chunks at once of a released level 0. With ten seconds it was 6.1 GB, and no faster (docs/log.md)."""


def decode_codes(
    engine: Engine, level: int, codes: np.ndarray, chunk_seconds: float = DECODED_SECONDS
) -> Iterator[np.ndarray]:
    """Decode codes `[T]` of a level into audio, float32 chunks that add up to `[hop * T]` samples."""
    if len(codes) == 0:
        raise SamplingError(f"level {level} has no codes yet, so there is nothing to decode.")
    vqvae = engine.config.vqvae
    decoder = engine.runner(GraphKind.VQVAE_DECODE, level)
    field = decoder_receptive_field(vqvae, level)
    hop = vqvae.hop_length(level)

    def decode(chunk: Chunk) -> np.ndarray:
        part = codes[chunk.outer()].astype(np.int64)
        return decoder({"codes": part[None]})["audio"][0, 0, chunk.inner(hop)]

    chunks = plan_chunks(len(codes), _chunk_length(engine, decoder.spec, field, chunk_seconds), field)
    yield from _in_order(decode, chunks, decoder.concurrent_calls)


def encode_audio(engine: Engine, level: int, audio: np.ndarray, chunk_seconds: float = ENCODED_SECONDS) -> np.ndarray:
    """Encode audio `[hop * T]` in [-1, 1] into the codes of a level, int64 `[T]`."""
    vqvae = engine.config.vqvae
    hop = vqvae.hop_length(level)
    if len(audio) == 0 or len(audio) % hop:
        raise AudioError(f"{len(audio)} samples are not a whole number of codes of level {level}, {hop} samples each.")
    encoder = engine.runner(GraphKind.VQVAE_ENCODE, level)
    field = encoder_context(vqvae, level)

    def encode(chunk: Chunk) -> np.ndarray:
        part = audio[chunk.outer(hop)].astype(np.float32)
        return encoder({"audio": part[None, None]})["codes"][0, chunk.inner()]

    chunks = plan_chunks(len(audio) // hop, _chunk_length(engine, encoder.spec, field, chunk_seconds), field)
    return np.concatenate(list(_in_order(encode, chunks, encoder.concurrent_calls))).astype(np.int64)


def _in_order(work: Callable[[Chunk], np.ndarray], chunks: Iterable[Chunk], at_once: int) -> Iterator[np.ndarray]:
    """The results of all chunks, so many of which are worked on at once; no more than that wait to be taken."""
    return map(work, chunks) if at_once == 1 else map_in_threads(work, chunks, threads=at_once, ahead=at_once - 1)


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
