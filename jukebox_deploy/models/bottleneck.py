"""The codebook of one VQ-VAE level: quantisation, and its training without gradients.

A codebook learns by moving averages of the latents assigned to each code, and codes that are hardly
used restart at random latents. That training is written as functions from state to state; the
random latents ("candidates") are handed in. Source: specification 2.5; paper section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # the usual name

from jukebox_deploy.models.full_precision import full_precision

CandidateDraw = Callable[[Tensor, int], Tensor]
"""Picks rows to (re)start codes at: (rows `[R, E]`, count) -> `[count, E]`."""


class Peers(Protocol):
    """The processes that train a codebook together, each with its part of a batch."""

    @property
    def rank(self) -> int:
        """Number of this process; its rows come behind those of lower ranks."""

    @property
    def count(self) -> int:
        """Number of processes; all have equally many rows."""

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; all must call it."""


@dataclass(frozen=True)
class Alone:
    """A process without peers."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor


ALONE = Alone()


class Codebook(nn.Module):
    """The vectors that stand for the codes of one level."""

    codes: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(size, width))

    def encode(self, latents: Tensor) -> Tensor:
        """Latents `[B, E, T]` -> codes `[B, T]`; the first one where several are equally near."""
        return squared_distances(latents.transpose(1, 2), self.codes).argmin(dim=-1)

    def dequantise(self, codes: Tensor) -> Tensor:
        """Codes `[B, T]` -> latents `[B, E, T]`."""
        return F.embedding(codes, self.codes).transpose(1, 2)


def squared_distances(rows: Tensor, codes: Tensor) -> Tensor:
    """Squared distance of every row to every code: `[..., E]`, `[K, E]` -> `[..., K]`.

    Expanded like this, and in float32, near ties resolve as in the original (specification 17.6).
    """
    with full_precision(rows):
        return rows.square().sum(-1, keepdim=True) - 2 * (rows @ codes.t()) + codes.square().sum(-1)


@dataclass(frozen=True)
class CodebookState:
    """What the training of one codebook carries from batch to batch."""

    codes: Tensor  # [K, E]
    sums: Tensor  # [K, E], moving average of the summed latents of each code
    counts: Tensor  # [K], moving average of the number of latents of each code


@dataclass(frozen=True)
class UpdateRule:
    """How a codebook follows the latents."""

    decay: float = 0.99  # of the moving averages, per batch
    threshold: float = 1.0  # codes with a smaller moving count restart
    share: float = math.inf  # of the latents per code: the threshold is never more than it, so that many codes can stay

    def threshold_of(self, counts: Tensor) -> Tensor:
        """The smallest moving count of a code that stays, for a batch with these counts `[K]`."""
        return (counts.mean() * self.share).clamp(max=self.threshold)


@dataclass(frozen=True)
class CodebookMetrics:
    """How well a codebook does on one batch. All are scalars."""

    fit: Tensor  # mean squared distance to the nearest code
    prenorm: Tensor  # standard deviation of the latents
    entropy: Tensor  # of the codes in the batch, in nats
    used_current: Tensor  # codes with at least `threshold` latents in the batch
    usage: Tensor  # codes with a moving count of at least `threshold`
    change: Tensor  # root mean square of the codes' move


@dataclass(frozen=True)
class Quantisation:
    """Quantised latents and what they cost."""

    latents: Tensor  # [B, E, T]; gradients pass straight through to the encoder
    commit_loss: Tensor  # scalar, for the encoder only


def flatten_latents(latents: Tensor) -> Tensor:
    """`[B, E, T] -> [B*T, E]`, time fastest within an item."""
    return latents.transpose(1, 2).flatten(0, 1)


def quantise(latents: Tensor, codes: Tensor) -> Quantisation:
    """Replace latents `[B, E, T]` by their nearest of `codes` `[K, E]`, with gradients for training."""
    nearest = squared_distances(latents.detach().transpose(1, 2), codes).argmin(dim=-1)
    dequantised = F.embedding(nearest, codes).transpose(1, 2).detach()
    straight_through = latents + (dequantised - latents).detach()
    return Quantisation(straight_through, F.mse_loss(latents, dequantised))


def draw_candidates(rows: Tensor, count: int, generator: torch.Generator | None = None, peers: Peers = ALONE) -> Tensor:
    """`count` different rows of all processes at random: `[R, E] -> [count, E]`, the same for all.

    With too few rows, all of them are repeated first, with a little noise to tell them apart. The
    generators of all processes must be in the same state.
    """
    own, width = rows.shape
    available = own * peers.count
    repeated = available * math.ceil(count / available)
    noise = None
    if repeated > available:
        noise = torch.randn(repeated, width, generator=generator, device=rows.device, dtype=rows.dtype)
    drawn = torch.randperm(repeated, generator=generator, device=rows.device)[:count]
    place = drawn % available - own * peers.rank
    mine = (place >= 0) & (place < own)
    candidates = peers.sum(torch.where(mine[:, None], rows[place.clamp(0, own - 1)], 0))
    return candidates if noise is None else candidates + noise[drawn] * (0.01 / math.sqrt(width))


def initialise_codebook(candidates: Tensor) -> CodebookState:
    """A fresh state whose codes are the candidates `[K, E]`."""
    return CodebookState(candidates.clone(), candidates.clone(), candidates.new_ones(candidates.shape[0]))


def restore_codebook(codes: Tensor, tokens: int) -> CodebookState:
    """A state to go on training from saved codes `[K, E]`, as if all were used equally often.

    `tokens` is the number of codes in a batch item, times the number of workers. Without this, the
    first batch would start the codebook anew.
    """
    expected = tokens / codes.shape[0]
    return CodebookState(codes.clone(), expected * codes, codes.new_full((codes.shape[0],), expected))


@torch.no_grad()
def update_codebook(
    state: CodebookState, latents: Tensor, rule: UpdateRule, draw: CandidateDraw, peers: Peers = ALONE
) -> tuple[CodebookState, CodebookMetrics]:
    """Move a codebook towards a batch of latents `[B, E, T]`; returns the new state and metrics.

    With peers, latents are this process's part of the batch. The state is the same for all as long
    as `draw` gives all the same rows; of the metrics, `fit` and `prenorm` are of the part.
    """
    rows = flatten_latents(latents)
    distances, nearest = squared_distances(rows, state.codes).min(dim=-1)
    batch_sums = peers.sum(torch.zeros_like(state.sums).index_add_(0, nearest, rows))
    batch_counts = peers.sum(torch.bincount(nearest, minlength=state.counts.shape[0]).to(rows.dtype))
    sums = rule.decay * state.sums + (1 - rule.decay) * batch_sums
    counts = rule.decay * state.counts + (1 - rule.decay) * batch_counts
    threshold = rule.threshold_of(batch_counts)
    used = counts >= threshold
    # Restarted codes keep their sums and counts.
    codes = torch.where(used[:, None], sums / counts[:, None], draw(rows, counts.shape[0]))
    metrics = CodebookMetrics(
        fit=distances.mean(),
        prenorm=_root_mean_square(rows - rows.mean()),
        entropy=_entropy(batch_counts),
        used_current=(batch_counts >= threshold).sum().to(rows.dtype),
        usage=used.sum().to(rows.dtype),
        change=_root_mean_square(codes - state.codes),
    )
    return CodebookState(codes, sums, counts), metrics


def _root_mean_square(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm / math.sqrt(x.numel())


def _entropy(counts: Tensor) -> Tensor:
    probabilities = counts / counts.sum()
    return -(probabilities * (probabilities + 1e-8).log()).sum()
