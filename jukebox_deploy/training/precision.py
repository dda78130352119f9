"""Element type of the matrix products of a training step. Source: specification sections 4.4 and 17."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch

from jukebox_deploy.models.bf16_products import has_bf16_instructions


class TrainingPrecision(StrEnum):
    """Element type of matrix products; weights, moments and averages stay in float32."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"  # with a loss scale


def is_emulated(precision: TrainingPrecision) -> bool:
    """Return whether this machine has no instructions for a precision, so that it is slower instead of faster."""
    return precision is TrainingPrecision.BF16 and not torch.cuda.is_available() and not has_bf16_instructions()


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context for a forward pass."""
    if precision is TrainingPrecision.FP32:
        return nullcontext()
    dtype = torch.bfloat16 if precision is TrainingPrecision.BF16 else torch.float16
    return torch.autocast(device.type, dtype)
