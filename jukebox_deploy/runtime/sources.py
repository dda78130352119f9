"""Length and given codes of a new song, for every mode (specification 12.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.runtime.audio import read_prompt
from jukebox_deploy.runtime.decode import Encoder
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


class SourceReader:
    """Reader of the sources of several songs: encoders are opened once, and equal prompts are encoded once."""

    def __init__(self, engine: Engine, checkpoint: str) -> None:
        """`checkpoint` is the fingerprint of the engine's checkpoint.

        A source made with another checkpoint is refused, because its codes stand for other sounds.
        """
        self._engine = engine
        self._checkpoint = checkpoint
        self._vqvae = engine.config.vqvae
        self._prompts: dict[tuple[str | None, float | None], list[np.ndarray]] = {}
        self._given: dict[Mode, Callable[[SongRequest], list[np.ndarray]]] = {
            Mode.ANCESTRAL: self._nothing,
            Mode.PRIMED: self._prompt,
            Mode.CONTINUE: self._saved,
            Mode.UPSAMPLE: self._saved_top,
        }

    def open(self, request: SongRequest) -> SongSource:
        """Read or encode the given codes of a song; raise `SamplingError` or `AudioError` if it cannot be sampled."""
        if request.source_seconds is not None:
            self._whole_samples("--prompt-seconds", request.source_seconds)  # only to refuse too little
        if request.mode in FROM_CODES:
            read_record_of(Path(request.source or ""), self._engine.config.name, self._checkpoint)
        given = self._given[request.mode](request)
        samples = self._samples(request, given[-1])
        totals = tuple(samples // hop for hop in self._vqvae.hop_lengths)
        _check_amount(request, self._vqvae, len(given[-1]), samples)
        return SongSource(tuple(codes[:total] for codes, total in zip(given, totals, strict=True)), totals)

    def _samples(self, request: SongRequest, top_codes: np.ndarray) -> int:
        """Return the length of the song in samples, a whole number of top-level codes."""
        if request.seconds is None:
            return len(top_codes) * self._vqvae.hop_lengths[-1]
        return self._whole_samples("--seconds", request.seconds)

    def _whole_samples(self, option: str, seconds: float) -> int:
        """Convert a length as `whole_samples` does; raise `SamplingError` if it is less than one top-level code."""
        samples = whole_samples(seconds, self._vqvae)
        if samples == 0:
            code = self._vqvae.hop_lengths[-1] / self._vqvae.sample_rate
            raise SamplingError(f"{option} {seconds} is less than one top-level code ({code:.4f} s); give more.")
        return samples

    def _nothing(self, request: SongRequest) -> list[np.ndarray]:
        return [np.zeros(0, np.int64) for _ in range(self._vqvae.levels)]

    def _prompt(self, request: SongRequest) -> list[np.ndarray]:
        """Encode a sound file at every level."""
        key = request.source, request.source_seconds
        if key not in self._prompts:
            source, hop = Path(request.source or ""), self._vqvae.hop_lengths[-1]
            audio = read_prompt(source, self._vqvae.sample_rate, hop, request.source_seconds)
            self._prompts[key] = [encode(audio) for encode in self._encoders]
        return self._prompts[key]

    @cached_property
    def _encoders(self) -> list[Encoder]:
        return [Encoder(self._engine, level) for level in range(self._vqvae.levels)]

    def _saved(self, request: SongRequest) -> list[np.ndarray]:
        """Read the codes of a song folder at every level, up to `source_seconds`."""
        source = Path(request.source or "")
        codes = [read_codes(source, level, self._vqvae.codebook_size) for level in range(self._vqvae.levels)]
        if len(codes[-1]) == 0:
            raise SamplingError(
                f"{source} has no codes of the top level, {self._vqvae.levels - 1}; choose another song folder."
            )
        if request.source_seconds is None:
            return codes
        samples = whole_samples(request.source_seconds, self._vqvae)
        return [kept[: samples // hop] for kept, hop in zip(codes, self._vqvae.hop_lengths, strict=True)]

    def _saved_top(self, request: SongRequest) -> list[np.ndarray]:
        """Read only the top-level codes of a song folder."""
        return [*self._nothing(request)[:-1], self._saved(request)[-1]]


def _check_amount(request: SongRequest, vqvae: VQVAEConfig, top_codes: int, samples: int) -> None:
    """Raise `SamplingError` if `top_codes` given ones are too many or too few for a song of `samples`."""
    hop, rate = vqvae.hop_lengths[-1], vqvae.sample_rate
    needed = samples // hop
    if request.mode in (Mode.PRIMED, Mode.CONTINUE) and top_codes >= needed:
        raise SamplingError(
            f"{request.source} already gives {top_codes * hop / rate:.2f} s of the {samples / rate:.2f} s requested in "
            "all, so nothing is left to sample; request more with --seconds, or use less of the source with "
            "--prompt-seconds."
        )
    if request.mode is Mode.UPSAMPLE and top_codes < needed:
        raise SamplingError(
            f"{request.source} has {top_codes} top-level codes, but {needed} are needed for {request.seconds} s; "
            "request less with --seconds, or continue that song first (--continue)."
        )


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
