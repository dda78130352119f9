"""From a batch to a loss: what is trained, as modules whose state goes in and comes out.

A module, because DDP and FSDP wrap modules and look at what `forward` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from jukebox_deploy.config import LyricsConfig, PriorConfig
from jukebox_deploy.models.bottleneck import (
    ALONE,
    CandidateDraw,
    CodebookMetrics,
    CodebookState,
    Peers,
    UpdateRule,
    draw_candidates,
)
from jukebox_deploy.models.losses import Bandwidths, LossReport, LossSettings, vqvae_loss
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.prior_loss import PriorBatch, prior_loss
from jukebox_deploy.models.vqvae import VQVAE

Batch = Mapping[str, Tensor]
"""Tensors by name; the first axis is `B`."""

State = Mapping[str, Tensor]
"""What a step leaves to the next one besides the weights; empty before the first."""

LABEL_NAMES = ("artist", "genres", "total_bin", "absolute_bins", "relative_bins")
"""The parts of a batch that `Prior.condition` takes."""


class Outcome(NamedTuple):
    """What a forward pass gives."""

    total: Tensor  # scalar, to be minimised
    metrics: dict[str, Tensor]  # scalars without gradients
    state: State


class Objective(Protocol):
    """A module that is trained, or its wrapper."""

    def __call__(self, batch: Batch, state: State, seed: int) -> Outcome:
        """The loss of a batch. `seed` is another one in every call, and the same on all processes."""


class VQVAEObjective(nn.Module):
    """A VQ-VAE with its losses. A batch has `audio` `[B, 1, T]`; the state holds the codebooks."""

    def __init__(
        self,
        vqvae: VQVAE,
        settings: LossSettings,
        bandwidths: Bandwidths,
        rule: UpdateRule | None = None,
        peers: Peers = ALONE,
        levels: tuple[int, ...] = (),
    ) -> None:
        """`levels`: those that are trained; empty: all."""
        super().__init__()
        self.model = vqvae
        self._settings = settings
        self._bandwidths = bandwidths
        self._rule = rule or UpdateRule()
        self._peers = peers
        self._levels = levels or tuple(range(len(vqvae.codebooks)))

    def forward(self, batch: Batch, state: State, seed: int) -> Outcome:
        """See `Objective`."""
        audio = batch["audio"]
        before = unpack_codebooks(state, self._levels)
        step = self.model.training_step(audio, before, self._rule, _seeded_draw(seed, self._peers), self._peers)
        report = vqvae_loss(audio, step.reconstruction, self._settings, self._bandwidths)
        metrics = {**_loss_metrics(report), **_codebook_metrics(step.metrics)}
        return Outcome(report.total, metrics, pack_codebooks(step.codebooks))


class PriorObjective(nn.Module):
    """A prior with its loss. A batch has `codes` `[B, n]`, label arrays, and `upper_codes` of an upsampler."""

    def __init__(self, prior: Prior, config: PriorConfig) -> None:
        super().__init__()
        self.model = prior
        self._shift = config.code_shift
        self._lyrics: LyricsConfig | None = config.lyrics

    def forward(self, batch: Batch, state: State, seed: int) -> Outcome:
        """See `Objective`; nothing is random here, and there is no state."""
        loss = prior_loss(self.model, self.whole_windows(batch), self._lyrics.loss_fraction if self._lyrics else 0.0)
        metrics = {"bits": loss.music.detach()}
        if loss.lyrics is not None:
            metrics["lyric_bits"] = loss.lyrics.detach()
        return Outcome(loss.total, metrics, {})

    def whole_windows(self, batch: Batch) -> PriorBatch:
        """The windows as the prior takes them: ids of its vocabulary, lyrics in front where they share it."""
        labels = {name: batch[name] for name in LABEL_NAMES if name in batch}
        start, conditioning = self.model.condition(labels, batch.get("upper_codes"))
        tokens, lyrics = batch["codes"] + self._shift, batch.get("lyric_tokens")
        if lyrics is not None and self.model.lyric_encoder is None:
            tokens, lyrics = torch.cat([lyrics, tokens], dim=1), None
        return PriorBatch(tokens, start, conditioning, lyrics)


_STATE_NAMES = ("codes", "sums", "counts")


def pack_codebooks(states: Mapping[int, CodebookState]) -> dict[str, Tensor]:
    """Codebook states by level, as tensors by name."""
    return {f"{name}.{level}": getattr(state, name) for level, state in states.items() for name in _STATE_NAMES}


def unpack_codebooks(state: State, levels: tuple[int, ...]) -> dict[int, CodebookState | None]:
    """The reverse; `None` for each level before the first step."""
    if not state:
        return dict.fromkeys(levels)
    return {level: CodebookState(*(state[f"{name}.{level}"] for name in _STATE_NAMES)) for level in levels}


def _seeded_draw(seed: int, peers: Peers) -> CandidateDraw:
    """Candidates for restarted codes that depend on the seed alone."""
    generators: dict[torch.device, torch.Generator] = {}

    def draw(rows: Tensor, count: int) -> Tensor:
        if rows.device not in generators:
            generators[rows.device] = torch.Generator(rows.device).manual_seed(seed)
        return draw_candidates(rows, count, generators[rows.device], peers)

    return draw


def _loss_metrics(report: LossReport) -> dict[str, Tensor]:
    parts = {name: getattr(report, name) for name in ("reconstruction", "multispectral")}
    per_level = {
        f"{name}_{level}": value.detach()
        for name, values in parts.items()
        if values
        for level, value in zip(report.levels, values, strict=True)
    }
    convergence = report.spectral_convergence
    rest = {"commit": report.commit} | ({} if convergence is None else {"convergence": convergence})
    return per_level | {name: value.detach() for name, value in rest.items()}


def _codebook_metrics(metrics: Mapping[int, CodebookMetrics]) -> dict[str, Tensor]:
    return {
        f"{name}_{level}": getattr(one, name)
        for level, one in metrics.items()
        for name in ("fit", "entropy", "usage", "used_current", "change")
    }
