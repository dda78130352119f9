"""Training objectives: modules that compute the loss of a batch, with their state passed in and returned.

They are modules because DDP and FSDP wrap modules and inspect what `forward` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from jukebox_deploy.config import LyricsConfig, PriorConfig
from jukebox_deploy.models.bottleneck import (
    ALONE,
    CandidateDraw,
    Codebook,
    CodebookMetrics,
    CodebookState,
    CodebookUse,
    Peers,
    UpdateRule,
    draw_candidates,
    initialise_codebook,
    join_uses,
    update_codebook,
)
from jukebox_deploy.models.losses import Bandwidths, LossReport, LossSettings, vqvae_loss
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.prior_loss import PriorBatch, prior_loss
from jukebox_deploy.models.vqvae import VQVAE

Batch = Mapping[str, Tensor]
"""Tensors by name; the first axis is `B`."""

State = Mapping[str, Tensor]
"""State, besides the weights, that a step passes to the next one; empty before the first step."""

LABEL_NAMES = ("artist", "genres", "total_bin", "absolute_bins", "relative_bins")
"""Names of the tensors of a batch that `Prior.condition` takes."""


Metrics = Mapping[str, Tensor]
"""Scalars without gradients, by name."""


class Outcome(NamedTuple):
    """Result of a forward pass."""

    total: Tensor  # scalar, to be minimised
    metrics: Metrics
    uses: Mapping[int, CodebookUse]  # by level: statistics for the update of a VQ-VAE's codebooks; empty for a prior


class Objective(nn.Module, ABC):
    """A module to train, whose attribute `model` has the weights. Unless methods are overridden, it has no state."""

    @abstractmethod
    def forward(self, batch: Batch, state: State) -> Outcome:
        """Compute the loss of a batch, or of one piece of a batch; all pieces have the same size."""

    def first_state(self, pieces: Iterable[Outcome], seed: int) -> State:
        """Return the state with which the first step begins.

        `pieces` are the outcomes of the first batch with an empty state, computed lazily. All processes must call it
        with the same seed.
        """
        return {}

    def next_state(self, state: State, pieces: Sequence[Outcome], seed: int) -> tuple[State, Metrics]:
        """Return the state after a step and its metrics, from the outcomes of all pieces of the step's batch.

        All processes must call it with the same seed, which must differ between steps.
        """
        return {}, {}


class VQVAEObjective(Objective):
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
        """Build the objective; `levels` are the levels to train, empty for all."""
        super().__init__()
        self.model = vqvae
        self._settings = settings
        self._bandwidths = bandwidths
        self._rule = rule or UpdateRule()
        self._peers = peers
        self._levels = levels or tuple(range(len(vqvae.codebooks)))

    def forward(self, batch: Batch, state: State) -> Outcome:
        """See `Objective`; without a state, the codes are those of the model."""
        audio = batch["audio"]
        own = {f"codes.{level}": cast(Codebook, self.model.codebooks[level]).codes for level in self._levels}
        codes = {level: (state or own)[f"codes.{level}"] for level in self._levels}
        done = self.model.training_pass(audio, codes)
        report = vqvae_loss(audio, done.reconstruction, self._settings, self._bandwidths)
        return Outcome(report.total, _loss_metrics(report), done.uses)

    def first_state(self, pieces: Iterable[Outcome], seed: int) -> State:
        """See `Objective`; the codebooks begin with random latents of the whole batch."""
        draw, found = _seeded_draw(seed, self._peers), list(pieces)
        uses = {level: self._use(found, level) for level in self._levels}
        return pack_codebooks({n: initialise_codebook(draw(use.latents, len(use.counts))) for n, use in uses.items()})

    def next_state(self, state: State, pieces: Sequence[Outcome], seed: int) -> tuple[State, Metrics]:
        """See `Objective`; the codebooks are updated once, with the whole batch."""
        draw = _seeded_draw(seed, self._peers)
        updates = {
            level: update_codebook(before, self._use(pieces, level), self._rule, draw, self._peers)
            for level, before in unpack_codebooks(state, self._levels).items()
        }
        metrics = _codebook_metrics({level: metrics for level, (_, metrics) in updates.items()})
        return pack_codebooks({level: after for level, (after, _) in updates.items()}), metrics

    @staticmethod
    def _use(pieces: Sequence[Outcome], level: int) -> CodebookUse:
        return join_uses([piece.uses[level] for piece in pieces])


class PriorObjective(Objective):
    """A prior with its loss. A batch has `codes` `[B, n]`, label arrays, and `upper_codes` of an upsampler."""

    def __init__(self, prior: Prior, config: PriorConfig) -> None:
        super().__init__()
        self.model = prior
        self._shift = config.code_shift
        self._lyrics: LyricsConfig | None = config.lyrics

    def forward(self, batch: Batch, state: State) -> Outcome:
        """See `Objective`; there is no state."""
        loss = prior_loss(self.model, self.whole_windows(batch), self._lyrics.loss_fraction if self._lyrics else 0.0)
        metrics = {"bits": loss.music.detach()}
        if loss.lyrics is not None:
            metrics["lyric_bits"] = loss.lyrics.detach()
        return Outcome(loss.total, metrics, {})

    def whole_windows(self, batch: Batch) -> PriorBatch:
        """Convert a batch to the prior's input: ids of its vocabulary, after the lyrics if they share the sequence."""
        labels = {name: batch[name] for name in LABEL_NAMES if name in batch}
        start, conditioning = self.model.condition(labels, batch.get("upper_codes"))
        tokens, lyrics = batch["codes"] + self._shift, batch.get("lyric_tokens")
        if lyrics is not None and self.model.lyric_encoder is None:
            tokens, lyrics = torch.cat([lyrics, tokens], dim=1), None
        return PriorBatch(tokens, start, conditioning, lyrics)


_STATE_NAMES = ("codes", "sums", "counts")


def pack_codebooks(states: Mapping[int, CodebookState]) -> dict[str, Tensor]:
    """Convert codebook states by level to tensors by name."""
    return {f"{name}.{level}": getattr(state, name) for level, state in states.items() for name in _STATE_NAMES}


def unpack_codebooks(state: State, levels: tuple[int, ...]) -> dict[int, CodebookState]:
    """Convert tensors by name to codebook states by level."""
    return {level: CodebookState(*(state[f"{name}.{level}"] for name in _STATE_NAMES)) for level in levels}


def _seeded_draw(seed: int, peers: Peers) -> CandidateDraw:
    """Return a function that draws candidates for restarted codes with generators that depend only on the seed."""
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
