"""Element type of the matrix products of a training step. Source: specification sections 4.4 and 17."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch


class TrainingPrecision(StrEnum):
    """Element type of matrix products; weights, moments and averages stay in float32."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"  # with a loss scale


_WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""PyTorch's names of x86 capabilities without vector instructions for bf16."""


def is_emulated(precision: TrainingPrecision) -> bool:
    """Return whether this machine has no instructions for a precision, so that it is slower instead of faster."""
    return (
        precision is TrainingPrecision.BF16
        and not torch.cuda.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16
    )


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context for a forward pass."""
    if precision is TrainingPrecision.FP32:
        return nullcontext()
    dtype = torch.bfloat16 if precision is TrainingPrecision.BF16 else torch.float16
    return torch.autocast(device.type, dtype)
