"""Metrics that add up over batches: reconstruction errors, code usage, and scores of predicted tokens.

Energies, counts and bits are summed over all batches, and means are computed at the end, so that the result does not
depend on how the songs are divided into batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ErrorEnergy:
    """Energy of signals and of the errors of their reconstructions; the sum of two is that of both together."""

    signal: float = 0.0
    error: float = 0.0

    def __add__(self, other: ErrorEnergy) -> ErrorEnergy:
        return ErrorEnergy(self.signal + other.signal, self.error + other.error)

    @property
    def decibels(self) -> float:
        """Signal-to-error ratio; infinite without error, minus infinity for silence, NaN if any sample is NaN."""
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf


def error_energy(target: Tensor, output: Tensor) -> ErrorEnergy:
    """Compute the energies of audio of any shape, which both arguments share; summed in float64."""
    wide = target.double()
    return ErrorEnergy(wide.square().sum().item(), (wide - output.double()).square().sum().item())


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """Count how often each code occurs in codes of any shape: int64 `[K]`."""
    return torch.bincount(codes.flatten(), minlength=codebook_size)


@dataclass(frozen=True)
class CodeUse:
    """Statistics of the use of a codebook's codes."""

    codes: int  # number of codes that were counted
    codebook_size: int
    used: int  # number of distinct codes among them
    entropy_nats: float

    @property
    def entropy_bits(self) -> float:
        """The entropy of these codes in bits per code; counted from few codes, it is lower than that of many."""
        return self.entropy_nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """The number of equally frequent codes that would have this entropy."""
        return math.exp(self.entropy_nats)


def code_use(counts: Tensor) -> CodeUse:
    """Compute the statistics from the count of each code `[K]`; the entropy is 0 if there are no codes at all."""
    total = int(counts.sum())
    shares = counts[counts > 0].double() / max(total, 1)
    entropy = -(shares * shares.log()).sum().item()
    return CodeUse(total, len(counts), len(shares), abs(entropy))


@dataclass(frozen=True)
class TokenScore:
    """Score of the prediction of tokens; the sum of two is that of both together."""

    bits: float = 0.0  # total over all tokens
    hits: int = 0  # number of tokens that were predicted as the most likely
    tokens: int = 0

    def __add__(self, other: TokenScore) -> TokenScore:
        return TokenScore(self.bits + other.bits, self.hits + other.hits, self.tokens + other.tokens)

    @property
    def bits_per_token(self) -> float:
        """Cross-entropy in bits, also called bits per dimension; NaN without tokens."""
        return self.bits / self.tokens if self.tokens else math.nan

    @property
    def top1(self) -> float:
        """Share of tokens that were predicted as the most likely; NaN without tokens."""
        return self.hits / self.tokens if self.tokens else math.nan


def token_score(logits: Tensor, tokens: Tensor) -> TokenScore:
    """Score logits `[..., V]` by the tokens `[...]` that they predict."""
    rows, targets = logits.float().flatten(0, -2), tokens.flatten().long()
    bits = F.cross_entropy(rows, targets, reduction="none").double().sum().item() / math.log(2)
    return TokenScore(bits, int((rows.argmax(-1) == targets).sum()), len(targets))
