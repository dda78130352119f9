"""Decoding of codes to audio and encoding of audio to codes, in chunks so that memory does not grow with the song.

Every chunk is processed with as much context as the VQ-VAE's receptive field needs, so the result equals one pass over
the whole song up to float rounding. Zero padding takes effect only at the true ends of the song (specification 2.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from jukebox_deploy.chunks import Chunk, encoder_context, plan_chunks
from jukebox_deploy.config import VQVAEConfig
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


class Decoder:
    """The opened decoder of a level, for any number of songs."""

    def __init__(self, engine: Engine, level: int) -> None:
        """Open the graph; raise `EngineError` if the engine lacks it or cannot run it."""
        self._vqvae = engine.config.vqvae
        self._level = level
        self._runner = engine.runner(GraphKind.VQVAE_DECODE, level)

    def __call__(self, codes: np.ndarray, chunk_seconds: float = DECODED_SECONDS) -> Iterator[np.ndarray]:
        """Decode codes `[T]` into audio; yield float32 chunks that add up to `[hop * T]` samples."""
        if len(codes) == 0:
            raise SamplingError(
                f"level {self._level} has no codes yet, so there is nothing to decode; sample it first."
            )
        field = decoder_receptive_field(self._vqvae, self._level)
        hop = self._vqvae.hop_length(self._level)

        def decode(chunk: Chunk) -> np.ndarray:
            part = codes[chunk.outer()].astype(np.int64)
            return self._runner({"codes": part[None]})["audio"][0, 0, chunk.inner(hop)]

        length = _chunk_length(self._vqvae, self._runner.spec, field, chunk_seconds, len(codes))
        yield from _in_order(decode, plan_chunks(len(codes), length, field), self._runner.concurrent_calls)


class Encoder:
    """The opened encoder of a level, for any number of songs."""

    def __init__(self, engine: Engine, level: int) -> None:
        """Open the graph; raise `EngineError` if the engine lacks it or cannot run it."""
        self._vqvae = engine.config.vqvae
        self._level = level
        self._runner = engine.runner(GraphKind.VQVAE_ENCODE, level)

    def __call__(self, audio: np.ndarray, chunk_seconds: float = ENCODED_SECONDS) -> np.ndarray:
        """Encode audio `[hop * T]` in [-1, 1] into codes, int64 `[T]`."""
        hop = self._vqvae.hop_length(self._level)
        total = self._whole_codes(audio, hop)
        field = encoder_context(self._vqvae, self._level)

        def encode(chunk: Chunk) -> np.ndarray:
            part = audio[chunk.outer(hop)].astype(np.float32)
            return self._runner({"audio": part[None, None]})["codes"][0, chunk.inner()]

        length = _chunk_length(self._vqvae, self._runner.spec, field, chunk_seconds, total)
        chunks = _in_order(encode, plan_chunks(total, length, field), self._runner.concurrent_calls)
        return np.concatenate(list(chunks)).astype(np.int64)

    def _whole_codes(self, audio: np.ndarray, hop: int) -> int:
        if len(audio) == 0 or len(audio) % hop:
            raise AudioError(
                f"{len(audio)} samples are not a whole number of codes of level {self._level}, which has {hop} samples "
                "per code; give a positive multiple of that."
            )
        return len(audio) // hop


def decode_codes(
    engine: Engine, level: int, codes: np.ndarray, chunk_seconds: float = DECODED_SECONDS
) -> Iterator[np.ndarray]:
    """Decode codes `[T]` of a level once; see `Decoder`."""
    return Decoder(engine, level)(codes, chunk_seconds)


def encode_audio(engine: Engine, level: int, audio: np.ndarray, chunk_seconds: float = ENCODED_SECONDS) -> np.ndarray:
    """Encode audio `[hop * T]` at a level once; see `Encoder`."""
    return Encoder(engine, level)(audio, chunk_seconds)


def _in_order(work: Callable[[Chunk], np.ndarray], chunks: Iterable[Chunk], at_once: int) -> Iterator[np.ndarray]:
    """Yield the results of all chunks in order, with `at_once` chunks in progress or waiting to be consumed."""
    return map(work, chunks) if at_once == 1 else map_in_threads(work, chunks, threads=at_once, ahead=at_once - 1)


def _chunk_length(vqvae: VQVAEConfig, spec: GraphSpec, field: ReceptiveField, seconds: float, total: int) -> int:
    """Return the codes per chunk for about `seconds` of audio; with its context, a chunk fits the graph's range.

    `total` codes that fit as a whole need no context. Raises `EngineError` where not even one code fits with its own.
    """
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
