"""The choice of the next code: temperature, top-k, top-p, and inverse CDF from a given number.

Source: specification 12.3; docs/design.md, "Random numbers".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_HIDDEN = -1e9


def filter_logits(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """True where a code stays, `[B, V]`.

    `top_k` `[B]`, 0 for off: codes below the k-th largest logit go, ties with it stay. `top_p`
    `[B]`, 0 for off: in descending order, a code goes when the probability before it exceeds `top_p`
    (of equal logits the lower code comes first).
    """
    codes = logits.shape[-1]
    ordered, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    last = torch.where(top_k > 0, top_k, codes).clamp(max=codes) - 1
    stays = ordered >= ordered.gather(-1, last[:, None])
    cumulative = torch.cumsum(torch.softmax(ordered, dim=-1), dim=-1)
    before = F.pad(cumulative[:, :-1], (1, 0))
    stays &= (before <= top_p[:, None]) | (top_p <= 0)[:, None]
    # What stays is a prefix of the order, so its last code says which codes stay. Nothing stays
    # where logits are not numbers.
    last = (stays.to(torch.int32).sum(dim=-1, keepdim=True) - 1).clamp(min=0).to(torch.int64)
    threshold, bound = ordered.gather(-1, last), order.gather(-1, last)
    return (logits > threshold) | ((logits == threshold) & (torch.arange(codes, device=logits.device) <= bound))


def choose_codes(logits: Tensor, uniform: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Draw one code per slot, `[B]` int64, from logits `[B, V]` and numbers in [0, 1) `[B]`.

    A temperature of 0 takes the most likely code (the lower one of equals).
    """
    greedy = temperature <= 0
    scaled = logits / torch.where(greedy, 1.0, temperature)[:, None]
    scaled = torch.where(filter_logits(scaled, top_k, top_p), scaled, _HIDDEN)
    cumulative = torch.cumsum(torch.softmax(scaled, dim=-1), dim=-1)
    passed = cumulative <= uniform[:, None] * cumulative[:, -1:]
    drawn = passed.to(torch.int32).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    return torch.where(greedy, logits.argmax(dim=-1), drawn.to(torch.int64))


def logits_are_finite(logits: Tensor) -> Tensor:
    """True per slot, `[B]`, unless a logit is infinite or not a number."""
    finite = logits.abs() <= torch.finfo(torch.float32).max
    # Engines add whole numbers natively; ONNX Runtime's least one on a GPU is a call of cuDNN, the step's only one.
    return finite.to(torch.int32).sum(dim=-1) == logits.shape[-1]
