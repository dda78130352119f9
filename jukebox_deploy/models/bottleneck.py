"""The codebook of one VQ-VAE level: quantisation, and training without gradients.

The codes are moving averages of the latents assigned to them; codes that are hardly used restart at random latents. The
training is written as pure functions from state to state, and the random latents ("candidates") are passed in.
Source: specification 2.5; paper section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # the usual name

from jukebox_deploy.models.full_precision import full_precision

CandidateDraw = Callable[[Tensor, int], Tensor]
"""Selects rows at which codes start or restart: (rows `[R, E]`, count) -> `[count, E]`."""


class Peers(Protocol):
    """The processes that train a codebook together, each with its part of a batch."""

    @property
    def rank(self) -> int:
        """The rank of this process; its rows follow those of lower ranks."""

    @property
    def count(self) -> int:
        """The number of processes; all have the same number of rows."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes; all of them must call it."""


@dataclass(frozen=True)
class Alone:
    """A process without peers."""

    rank: int = 0
    count: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself."""
        return tensor


ALONE = Alone()


class Codebook(nn.Module):
    """The vectors of the codes of one level."""

    codes: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(size, width))

    def encode(self, latents: Tensor) -> Tensor:
        """Latents `[B, E, T]` -> nearest codes `[B, T]`; the lowest code where several are equally near."""
        return squared_distances(latents.transpose(1, 2), self.codes).argmin(dim=-1)

    def dequantise(self, codes: Tensor) -> Tensor:
        """Codes `[B, T]` -> latents `[B, E, T]`."""
        return F.embedding(codes, self.codes).transpose(1, 2)


def squared_distances(rows: Tensor, codes: Tensor) -> Tensor:
    """Compute the squared distance of every row to every code: `[..., E]`, `[K, E]` -> `[..., K]`.

    The square is expanded as in the original, and computed in float32, so that near ties resolve in the same way
    (specification 17.6).
    """
    with full_precision(rows):
        return rows.square().sum(-1, keepdim=True) - 2 * (rows @ codes.t()) + codes.square().sum(-1)


@dataclass(frozen=True)
class CodebookState:
    """Training state of one codebook, carried from batch to batch."""

    codes: Tensor  # [K, E]
    sums: Tensor  # [K, E], moving average of the summed latents of each code
    counts: Tensor  # [K], moving average of the number of latents of each code


@dataclass(frozen=True)
class UpdateRule:
    """Hyper-parameters of the codebook update."""

    decay: float = 0.99  # of the moving averages, per batch
    threshold: float = 1.0  # codes with a smaller moving count restart
    share: float = math.inf  # limits the threshold to this share of the mean count, else few codes could stay

    def threshold_of(self, counts: Tensor) -> Tensor:
        """Return the moving count below which a code restarts, for a batch with these counts `[K]`."""
        return (counts.mean() * self.share).clamp(max=self.threshold)


@dataclass(frozen=True)
class CodebookUse:
    """Statistics of the assignment of latents to the codes of a codebook; without gradients."""

    latents: Tensor  # [R, E]
    sums: Tensor  # [K, E], sum of the latents that are assigned to each code
    counts: Tensor  # [K], number of these latents
    fit: Tensor  # scalar, mean squared distance to the nearest code


@dataclass(frozen=True)
class CodebookMetrics:
    """Metrics of a codebook on one batch; all are scalars."""

    fit: Tensor  # mean squared distance to the nearest code
    entropy: Tensor  # of the codes in the batch, in nats
    used_current: Tensor  # number of codes with at least `threshold` latents in the batch
    usage: Tensor  # number of codes with a moving count of at least `threshold`
    change: Tensor  # root mean square change of the codes


@dataclass(frozen=True)
class Quantisation:
    """Quantised latents and their commitment loss."""

    latents: Tensor  # [B, E, T]; a straight-through estimator passes gradients to the encoder
    commit_loss: Tensor  # scalar; has gradients for the encoder only


def flatten_latents(latents: Tensor) -> Tensor:
    """Flatten latents, `[B, E, T] -> [B*T, E]`, with time as the fastest index within an item."""
    return latents.transpose(1, 2).flatten(0, 1)


def quantise(latents: Tensor, codes: Tensor) -> Quantisation:
    """Replace latents `[B, E, T]` by the nearest of `codes` `[K, E]`, with gradients for training."""
    nearest = squared_distances(latents.detach().transpose(1, 2), codes).argmin(dim=-1)
    dequantised = F.embedding(nearest, codes).transpose(1, 2).detach()
    straight_through = latents + (dequantised - latents).detach()
    return Quantisation(straight_through, F.mse_loss(latents, dequantised))


def draw_candidates(rows: Tensor, count: int, generator: torch.Generator | None = None, peers: Peers = ALONE) -> Tensor:
    """Draw `count` distinct rows at random from those of all processes: `[R, E] -> [count, E]`, the same for all.

    If there are too few rows, all of them are repeated, with a little noise to make them distinct. The generators of
    all processes must be in the same state.
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
    """Return an initial state whose codes are the candidates `[K, E]`."""
    return CodebookState(candidates.clone(), candidates.clone(), candidates.new_ones(candidates.shape[0]))


def restore_codebook(codes: Tensor, tokens: int) -> CodebookState:
    """Return a state to continue training from saved codes `[K, E]`, as if all had been used equally often.

    `tokens` is the number of codes in a batch item times the number of workers. Without such a state, the first batch
    would reinitialise the codebook.
    """
    expected = tokens / codes.shape[0]
    return CodebookState(codes.clone(), expected * codes, codes.new_full((codes.shape[0],), expected))


@torch.no_grad()
def codebook_use(latents: Tensor, codes: Tensor) -> CodebookUse:
    """Assign each of the latents `[B, E, T]` to the nearest of the codes `[K, E]`; return the statistics."""
    rows = flatten_latents(latents)
    distances, nearest = squared_distances(rows, codes).min(dim=-1)
    counts = torch.bincount(nearest, minlength=codes.shape[0]).to(rows.dtype)
    return CodebookUse(rows, torch.zeros_like(codes).index_add_(0, nearest, rows), counts, distances.mean())


def join_uses(pieces: Sequence[CodebookUse]) -> CodebookUse:
    """Combine the statistics of the pieces of a batch, which have the same size, into those of the whole batch."""
    return CodebookUse(
        torch.cat([piece.latents for piece in pieces]),
        torch.stack([piece.sums for piece in pieces]).sum(dim=0),
        torch.stack([piece.counts for piece in pieces]).sum(dim=0),
        torch.stack([piece.fit for piece in pieces]).mean(),
    )


@torch.no_grad()
def update_codebook(
    state: CodebookState, use: CodebookUse, rule: UpdateRule, draw: CandidateDraw, peers: Peers = ALONE
) -> tuple[CodebookState, CodebookMetrics]:
    """Update a codebook with the statistics of a batch; return the new state and the metrics.

    With peers, `use` belongs to this process's part of the batch. All processes get the same state if `draw` returns
    the same rows to all of them. The metrics are of the whole batch, except `fit`, which is of this process's part.
    """
    batch_sums, batch_counts = peers.sum(use.sums), peers.sum(use.counts)
    sums = rule.decay * state.sums + (1 - rule.decay) * batch_sums
    counts = rule.decay * state.counts + (1 - rule.decay) * batch_counts
    threshold = rule.threshold_of(batch_counts)
    used = counts >= threshold
    # Restarted codes keep their moving sums and counts, as in the original.
    codes = torch.where(used[:, None], sums / counts[:, None], draw(use.latents, counts.shape[0]))
    metrics = CodebookMetrics(
        fit=use.fit,
        entropy=_entropy(batch_counts),
        used_current=(batch_counts >= threshold).sum().to(counts.dtype),
        usage=used.sum().to(counts.dtype),
        change=_root_mean_square(codes - state.codes),
    )
    return CodebookState(codes, sums, counts), metrics


def _root_mean_square(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x)
    return norm / math.sqrt(x.numel())


def _entropy(counts: Tensor) -> Tensor:
    probabilities = counts / counts.sum()
    return -(probabilities * (probabilities + 1e-8).log()).sum()
