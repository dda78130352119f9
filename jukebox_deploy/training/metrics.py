"""How good a model is, as numbers that add up over batches: reconstructions, codes, and predicted tokens.

Energies, counts and bits are summed first and turned into a mean at the end, so that the result does
not depend on how the songs were divided into batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ErrorEnergy:
    """Energy of signals and of what was made wrong of them; the sum of two belongs to both together."""

    signal: float = 0.0
    error: float = 0.0

    def __add__(self, other: ErrorEnergy) -> ErrorEnergy:
        return ErrorEnergy(self.signal + other.signal, self.error + other.error)

    @property
    def decibels(self) -> float:
        """Signal over error; infinite without an error, minus infinity for silence, NaN if a sample was one."""
        if self.error == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.error) if self.signal else -math.inf


def error_energy(target: Tensor, output: Tensor) -> ErrorEnergy:
    """Energies of audio of any shape, twice the same; summed in float64."""
    wide = target.double()
    return ErrorEnergy(wide.square().sum().item(), (wide - output.double()).square().sum().item())


def code_counts(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs in codes of any shape: int64 `[K]`."""
    return torch.bincount(codes.flatten(), minlength=codebook_size)


@dataclass(frozen=True)
class CodeUse:
    """How evenly the codes of a codebook are used."""

    codes: int  # that were counted
    codebook_size: int
    used: int  # different ones among them
    entropy_nats: float

    @property
    def entropy_bits(self) -> float:
        """The same entropy in bits: what a prior that knows only the frequencies of codes would need per token."""
        return self.entropy_nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """The number of codes that would have this entropy if all were equally frequent."""
        return math.exp(self.entropy_nats)

    @property
    def used_share(self) -> float:
        """Share of the codebook that occurs at all."""
        return self.used / self.codebook_size


def code_use(counts: Tensor) -> CodeUse:
    """From how often each code occurs `[K]`; the entropy of no codes at all is 0."""
    total = int(counts.sum())
    shares = counts[counts > 0].double() / max(total, 1)
    entropy = -(shares * shares.log()).sum().item()
    return CodeUse(total, len(counts), len(shares), abs(entropy))


@dataclass(frozen=True)
class TokenScore:
    """How well tokens were predicted; the sum of two belongs to both together."""

    bits: float = 0.0  # of all tokens
    hits: int = 0  # tokens that were the most likely one
    tokens: int = 0

    def __add__(self, other: TokenScore) -> TokenScore:
        return TokenScore(self.bits + other.bits, self.hits + other.hits, self.tokens + other.tokens)

    @property
    def bits_per_token(self) -> float:
        """Cross-entropy in bits, also called bits per dimension; NaN without tokens."""
        return self.bits / self.tokens if self.tokens else math.nan

    @property
    def top1(self) -> float:
        """Share of tokens that were the most likely one; NaN without tokens."""
        return self.hits / self.tokens if self.tokens else math.nan


def token_score(logits: Tensor, tokens: Tensor) -> TokenScore:
    """Score logits `[..., V]` by the tokens `[...]` that they predict."""
    rows, targets = logits.float().flatten(0, -2), tokens.flatten().long()
    bits = F.cross_entropy(rows, targets, reduction="none").double().sum().item() / math.log(2)
    return TokenScore(bits, int((rows.argmax(-1) == targets).sum()), len(targets))
