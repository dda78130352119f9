"""Length and given codes of a new song, for every mode (specification 12.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime.audio import read_prompt
from jukebox_deploy.runtime.decode import encode_audio
from jukebox_deploy.runtime.song import FROM_CODES, Mode, SongLengths, SongRequest, whole_samples
from jukebox_deploy.runtime.store import SongRecord, read_codes, read_record


@dataclass(frozen=True)
class SongSource:
    """The given codes of a song (possibly none) and the number of codes that it will have, level 0 first."""

    given: tuple[np.ndarray, ...]
    totals: tuple[int, ...]

    @property
    def lengths(self) -> SongLengths:
        """The numbers of codes."""
        return SongLengths(tuple(len(codes) for codes in self.given), self.totals)


def open_source(engine: Engine, request: SongRequest, checkpoint: str) -> SongSource:
    """Read or encode the given codes of a song; raise `SamplingError` or `AudioError` if it cannot be sampled.

    `checkpoint` is the fingerprint of the engine's checkpoint. A source made with another checkpoint is refused,
    because its codes stand for other sounds.
    """
    vqvae = engine.config.vqvae
    if request.mode in FROM_CODES:
        read_record_of(Path(request.source or ""), engine.config.name, checkpoint)
    given = _GIVEN[request.mode](engine, request)
    if request.seconds is None:
        samples = len(given[-1]) * vqvae.hop_lengths[-1]
    else:
        samples = whole_samples(request.seconds, vqvae)
        if samples == 0:
            raise SamplingError(
                f"--seconds {request.seconds} is less than one top-level code "
                f"({vqvae.hop_lengths[-1] / vqvae.sample_rate:.4f} s); give more."
            )
    totals = tuple(samples // hop for hop in vqvae.hop_lengths)
    if request.mode in (Mode.PRIMED, Mode.CONTINUE) and len(given[-1]) >= totals[-1]:
        raise SamplingError(
            f"{request.source} already gives {len(given[-1]) * vqvae.hop_lengths[-1] / vqvae.sample_rate:.2f} s of the "
            f"{samples / vqvae.sample_rate:.2f} s requested in all, so nothing is left to sample; request more with "
            "--seconds, or use less of the source with --prompt-seconds."
        )
    if request.mode is Mode.UPSAMPLE and len(given[-1]) < totals[-1]:
        raise SamplingError(
            f"{request.source} has {len(given[-1])} top-level codes, but {totals[-1]} are needed for "
            f"{request.seconds} s; request less with --seconds, or continue that song first (--continue)."
        )
    return SongSource(tuple(codes[:total] for codes, total in zip(given, totals, strict=True)), totals)


def read_record_of(source: Path, model: str, checkpoint: str) -> SongRecord:
    """Read the record of a song; raise `SamplingError` if it was made with another checkpoint.

    The precision and the engine may differ, but the weights must be the same.
    """
    record = read_record(source)
    found = record.fingerprint.checkpoint
    if found != checkpoint:
        raise SamplingError(
            f"{source} is a song of another model: made with {record.model}, checkpoint {found[:12]}…; this is "
            f"{model}, checkpoint {checkpoint[:12]}…. Its codes mean nothing to this model; use the bundle that made "
            "the song."
        )
    return record


def _nothing(engine: Engine, request: SongRequest) -> list[np.ndarray]:
    return [np.zeros(0, np.int64) for _ in range(engine.config.vqvae.levels)]


def _prompt(engine: Engine, request: SongRequest) -> list[np.ndarray]:
    """Encode a sound file at every level."""
    vqvae = engine.config.vqvae
    source = Path(request.source or "")
    audio = read_prompt(source, vqvae.sample_rate, vqvae.hop_lengths[-1], request.source_seconds)
    return [encode_audio(engine, level, audio) for level in range(vqvae.levels)]


def _saved(engine: Engine, request: SongRequest) -> list[np.ndarray]:
    """Read the codes of a song folder at every level, up to `source_seconds`."""
    vqvae = engine.config.vqvae
    source = Path(request.source or "")
    codes = [read_codes(source, level, vqvae.codebook_size) for level in range(vqvae.levels)]
    if len(codes[-1]) == 0:
        raise SamplingError(f"{source} has no codes of the top level, {vqvae.levels - 1}; choose another song folder.")
    if request.source_seconds is None:
        return codes
    samples = whole_samples(request.source_seconds, vqvae)
    return [level_codes[: samples // hop] for level_codes, hop in zip(codes, vqvae.hop_lengths, strict=True)]


def _saved_top(engine: Engine, request: SongRequest) -> list[np.ndarray]:
    """Read only the top-level codes of a song folder."""
    return [*_nothing(engine, request)[:-1], _saved(engine, request)[-1]]


_GIVEN: dict[Mode, Callable[[Engine, SongRequest], list[np.ndarray]]] = {
    Mode.ANCESTRAL: _nothing,
    Mode.PRIMED: _prompt,
    Mode.CONTINUE: _saved,
    Mode.UPSAMPLE: _saved_top,
}
