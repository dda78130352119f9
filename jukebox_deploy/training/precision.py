"""In what element type the products of a training step are computed. Source: specification sections 4.4 and 17."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch


class TrainingPrecision(StrEnum):
    """Element type of the products; weights, moments and averages stay in float32."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"  # with a loss scale


_WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""What PyTorch calls x86 processors whose vector instructions know no bf16."""


def is_emulated(precision: TrainingPrecision) -> bool:
    """Whether a run here gets a processor without instructions for the type: it costs time instead of saving it."""
    return (
        precision is TrainingPrecision.BF16
        and not torch.cuda.is_available()
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16
    )


def autocast(precision: TrainingPrecision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    if precision is TrainingPrecision.FP32:
        return nullcontext()
    dtype = torch.bfloat16 if precision is TrainingPrecision.BF16 else torch.float16
    return torch.autocast(device.type, dtype)
