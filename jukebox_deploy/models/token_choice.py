"""Choice of the next code: temperature, top-k, top-p, and inverse CDF of a given random number.

Source: specification 12.3; docs/design.md, "Random numbers".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_HIDDEN = -1e9


def kept_codes(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return a mask `[B, V]` that is true for the codes that the filters keep.

    `top_k` `[B]` (0 for off) removes codes below the k-th largest logit and keeps ties with it. `top_p` `[B]` (0 for
    off) removes a code if, in descending order, the total probability of the codes before it exceeds `top_p`; among
    equal logits, the lower code comes first.
    """
    codes = logits.shape[-1]
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    last = torch.where(top_k > 0, top_k, codes).clamp(max=codes) - 1
    stays = ordered >= ordered.gather(-1, last[:, None])
    cumulative = torch.cumsum(torch.softmax(ordered, dim=-1), dim=-1)
    before = F.pad(cumulative[:, :-1], (1, 0))
    stays &= (before <= top_p[:, None]) | (top_p <= 0)[:, None]
    # The kept codes are a prefix of the sorted order, so the last of them determines all. If logits are NaN, no code is
    # kept.
    last = (stays.to(torch.int32).sum(dim=-1, keepdim=True) - 1).clamp(min=0).to(torch.int64)
    threshold, bound = ordered.gather(-1, last), order.gather(-1, last)
    return (logits > threshold) | ((logits == threshold) & (torch.arange(codes, device=logits.device) <= bound))


def choose_codes(logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Draw one code per slot, `[B]` int64, from logits `[B, V]` and random numbers `[B]` in [0, 1).

    A temperature of 0 selects the most likely code, the lowest in case of ties.
    """
    greedy = temperature <= 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    scaled = torch.where(kept_codes(scaled, top_k, top_p), scaled, _HIDDEN)
    cumulative = torch.cumsum(torch.softmax(scaled, dim=-1), dim=-1)
    passed = cumulative <= uniform[:, None] * cumulative[:, -1:]
    drawn = passed.to(torch.int32).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return torch.where(greedy, logits.argmax(dim=-1), drawn.to(torch.int64))


def logits_are_finite(logits: Tensor) -> Tensor:
    """Return true per slot, `[B]`, unless a logit is infinite or NaN."""
    finite = logits.abs() <= torch.finfo(torch.float32).max
    # Counted with an integer sum, which engines compute natively. For a minimum on a GPU, ONNX Runtime would call
    # cuDNN, which the step does not need otherwise.
    return finite.to(torch.int32).sum(dim=-1) == logits.shape[-1]
