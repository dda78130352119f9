"""Quick bf16 products on CPUs without instructions for them, where those of PyTorch may take 100 times as long."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # PyTorch's usual name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

_WITHOUT_BF16 = ("DEFAULT", "AVX2")
"""PyTorch's names of x86 capabilities without vector instructions for bf16."""

_PRODUCTS = (F.linear, torch.matmul, Tensor.matmul, Tensor.__matmul__)


def has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies bf16 numbers in vectors; without, they are slower than float32."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not (x86 and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16)


def quick_bf16_products(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which a device multiplies bf16 numbers as fast as it can.

    On a CPU without instructions for them, products are computed in float32 and rounded once, as those instructions do.
    """
    return ProductsInFloat32() if device.type == "cpu" and not has_bf16_instructions() else nullcontext()


class ProductsInFloat32(TorchFunctionMode):
    """A context in which products of bf16 tensors are computed in float32 and rounded."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of PyTorch."""
        if func not in _PRODUCTS or args[0].dtype is not torch.bfloat16:
            return func(*args, **(kwargs or {}))
        wide = [argument.float() if isinstance(argument, Tensor) else argument for argument in args]
        return func(*wide, **(kwargs or {})).bfloat16()
