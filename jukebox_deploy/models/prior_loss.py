"""Training loss of a prior: next-token cross-entropy of the music and of the lyrics.

All losses are in bits per token. Source: specification sections 8 and 10.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from jukebox_deploy.models.prior import Prior


class PriorBatch(NamedTuple):
    """Whole windows; `start` and `conditioning` come from `Prior.condition`."""

    tokens: Tensor  # [B, T] ids in the stack's vocabulary, lyrics first if they share the sequence
    start: Tensor | None = None  # [B, W]
    conditioning: Tensor | None = None  # [B, T, W]
    lyric_tokens: Tensor | None = None  # [B, L], for a prior with a lyric encoder


class PriorLoss(NamedTuple):
    """The parts of the loss, all scalars; `total` is to be minimised."""

    total: Tensor
    music: Tensor
    lyrics: Tensor | None  # None for a prior without lyrics


def token_bits(logits: Tensor, tokens: Tensor) -> Tensor:
    """Compute the mean cross-entropy of logits `[B, T, V]` and the tokens `[B, T]` that they predict, in bits."""
    # `flatten`, unlike `view`, accepts the slices of a sequence, which are not contiguous.
    return F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()) / math.log(2)


def prior_loss(prior: Prior, batch: PriorBatch, lyric_fraction: float = 0.0) -> PriorLoss:
    """Compute the loss of teacher-forced windows.

    The parts of music and lyrics are averaged by their numbers of tokens; the lyrics are weighted by `lyric_fraction`
    in addition.
    """
    states = lyric_bits = None
    if prior.lyric_encoder is not None:
        assert batch.lyric_tokens is not None
        states = prior.lyric_encoder(batch.lyric_tokens)
        lyric_bits = token_bits(prior.lyric_encoder.logits(states), batch.lyric_tokens)
    logits = prior(batch.tokens, batch.start, batch.conditioning, states)
    lyrics, window = prior.lyric_prefix, batch.tokens.shape[1]
    music_bits = token_bits(logits[:, lyrics:], batch.tokens[:, lyrics:])
    if lyrics:
        lyric_bits = token_bits(logits[:, :lyrics], batch.tokens[:, :lyrics])
    if lyric_bits is None:
        return PriorLoss(music_bits, music_bits, None)
    lyric_count = lyrics if batch.lyric_tokens is None else batch.lyric_tokens.shape[1]
    music_count = window - lyrics
    total = (lyric_fraction * lyric_bits * lyric_count + music_bits * music_count) / (lyric_count + music_count)
    return PriorLoss(total, music_bits, lyric_bits)
