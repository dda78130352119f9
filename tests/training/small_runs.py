"""Small models and batches to train in a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.config import (
    LabelConfig,
    LabelRules,
    LyricsConfig,
    PriorConfig,
    TimingConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.models.bottleneck import UpdateRule
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings
from jukebox_deploy.training.objective import PriorObjective, VQVAEObjective
from jukebox_deploy.training.settings import OptimiserSettings, Part, RunSettings
from jukebox_deploy.training.trainer import Trainer
from jukebox_deploy.training.workers import Workers

VQVAE = VQVAEConfig(
    sample_rate=8000, downs=(1, 1), strides=(2, 2), multipliers=(1, 1), width=4, depth=1, embedding_width=4,
    codebook_size=8,
)  # fmt: skip
PRIOR = PriorConfig(
    level=1,
    window=24,
    codebook_size=8,
    transformer=TransformerConfig(
        32, width=16, depth=4, heads=2, order=AttentionOrder.FACTORED_PRIME_AND_DENSE, blocks=4, prime_tokens=8
    ),
    labels=LabelConfig(LabelRules.NAMES, artists=3, genres=3, genre_slots=1, timing=TimingConfig(4, 0.01, 10.0)),
    lyrics=LyricsConfig(tokens=8, vocabulary=79),
)
SAMPLES = 2560
"""Of an example; the spectral losses need more than 1024, the worst samples 2048."""

Batches = Callable[[int, int], Mapping[str, np.ndarray]]
"""Makes the batch of a number, with so many examples."""


def settings(part: Part, **changes: object) -> RunSettings:
    """Settings of a short run."""
    base = RunSettings(part, steps=6, batch=4, optimiser=OptimiserSettings(learning_rate=1e-2, warm_up=2))
    return replace(base, **changes)  # type: ignore[arg-type]  # any field


def audio_batch(number: int, size: int) -> Mapping[str, np.ndarray]:
    """Noise through a resonance; a function of the number."""
    noise = np.random.default_rng(number).standard_normal((size, 1, SAMPLES))
    return {"audio": (np.cumsum(noise, axis=-1) * 0.02).astype(np.float32)}


def code_batch(number: int, size: int) -> Mapping[str, np.ndarray]:
    """Windows that count upwards from a random code, and labels."""
    rng = np.random.default_rng(number)
    codes = (rng.integers(0, 8, (size, 1)) + np.arange(PRIOR.window)) % 8
    bins = np.zeros((size, PRIOR.window), np.int64)
    return {
        "codes": codes,
        "artist": rng.integers(0, 3, size),
        "genres": rng.integers(0, 3, (size, 1)),
        "total_bin": np.zeros(size, np.int64),
        "absolute_bins": bins,
        "relative_bins": bins,
        "lyric_tokens": rng.integers(0, 79, (size, 8)),
    }


def vqvae_trainer(batch: Batches = audio_batch, **changes: object) -> Trainer:
    """A trainer of a small VQ-VAE."""
    torch.manual_seed(0)
    objective = VQVAEObjective(build_vqvae(VQVAE), LossSettings(), Bandwidths(0.3, 0.1, 10.0), UpdateRule())
    run = settings(Part.VQVAE, **changes)
    return Trainer(objective, run, lambda number: batch(number, run.examples(1)), Workers())


def prior_trainer(batch: Batches = code_batch, **changes: object) -> Trainer:
    """A trainer of a small prior with lyrics and labels."""
    torch.manual_seed(0)
    run = settings(Part.PRIOR, **changes)
    objective = PriorObjective(build_prior(PRIOR), PRIOR)
    return Trainer(objective, run, lambda number: batch(number, run.examples(1)), Workers())
