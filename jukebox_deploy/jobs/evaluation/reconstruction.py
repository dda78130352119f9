"""Quality of sound reconstructed by a VQ-VAE, level by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jukebox_deploy.data.audio_files import Audio
from jukebox_deploy.engine import Engine
from jukebox_deploy.models.losses import spectral_convergence
from jukebox_deploy.runtime.decode import Decoder, Encoder, decode_codes, encode_audio
from jukebox_deploy.training.metrics import CodeUse, ErrorEnergy, code_counts, code_use, error_energy


@dataclass(frozen=True)
class LevelQuality:
    """How well a level reconstructs sound, and how evenly its codes are used."""

    level: int
    snr: float  # decibels, over all sound
    spectral_convergence: float  # mean over the pieces
    use: CodeUse

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        use = self.use
        return {
            "level": self.level,
            "snr_decibel": self.snr,
            "spectral_convergence": self.spectral_convergence,
            "codes": use.codes,
            "codebook_size": use.codebook_size,
            "codes_used": use.used,
            "perplexity": use.perplexity,
            "entropy_nats": use.entropy_nats,
            "entropy_bits": use.entropy_bits,
        }


class LevelMeasurement:
    """Accumulates measurements on pieces of sound for one level of a VQ-VAE."""

    def __init__(self, engine: Engine, level: int) -> None:
        self._level = level
        self._encode, self._decode = Encoder(engine, level), Decoder(engine, level)
        self._energy = ErrorEnergy()
        self._convergences: list[float] = []
        self._counts = torch.zeros(engine.config.vqvae.codebook_size, dtype=torch.int64)

    def add(self, audio: Audio) -> None:
        """Encode and decode a piece `[hop * T]`. Raises `AudioError` if it is too short for a spectrogram."""
        codes = self._encode(audio)
        output = torch.from_numpy(np.concatenate(list(self._decode(codes))))
        target = torch.from_numpy(audio)
        self._energy += error_energy(target, output)
        self._convergences.append(float(spectral_convergence(target[None, None], output[None, None])))
        self._counts += code_counts(torch.from_numpy(codes), len(self._counts))

    def quality(self) -> LevelQuality:
        """Return the quality over all pieces so far."""
        convergence = float(np.mean(self._convergences))
        return LevelQuality(self._level, self._energy.decibels, convergence, code_use(self._counts))


def reconstructed(engine: Engine, level: int, audio: Audio) -> Audio:
    """Encode and decode audio `[T]` at one level; a partial code at the end is cut off: `[T // hop * hop]`."""
    hop = engine.config.vqvae.hop_length(level)
    codes = encode_audio(engine, level, audio[: len(audio) // hop * hop])
    return np.concatenate(list(decode_codes(engine, level, codes)))
