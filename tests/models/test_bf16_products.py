"""Products of bf16 tensors in float32."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # PyTorch's usual name for it
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jukebox_deploy.models.bf16_products import ProductsInFloat32, quick_bf16_products


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


class Noted(TorchFunctionMode):
    """Notes what is multiplied."""

    def __init__(self) -> None:
        self.products: list[torch.dtype] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("linear", "matmul", "__matmul__"):
            self.products.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "product",
    [lambda x, w: x @ w, torch.matmul, Tensor.matmul, lambda x, w: F.linear(x, w.t())],
    ids=["@", "matmul", "Tensor.matmul", "linear"],
)
@pytest.mark.parametrize("inference", [False, True])
def test_products_are_computed_in_float32_and_rounded(product: Callable[..., Tensor], inference: bool) -> None:
    x, w = random(4, 3, 64).bfloat16(), random(64, 16).bfloat16()
    with torch.inference_mode(inference), Noted() as noted, ProductsInFloat32():
        found = product(x, w)
    assert noted.products == [torch.float32]
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, (x.float() @ w.float()).bfloat16())


def test_all_else_is_left_alone() -> None:
    x, w = random(3, 64), random(64, 16)
    with ProductsInFloat32():
        assert torch.equal(x @ w, torch.mm(x, w))
        assert (x.bfloat16() + 1).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("machine", "capability", "device", "emulated"),
    [
        ("x86_64", "AVX2", "cpu", True),
        ("AMD64", "DEFAULT", "cpu", True),
        ("x86_64", "AVX512", "cpu", False),
        ("aarch64", "DEFAULT", "cpu", False),
        ("x86_64", "AVX2", "cuda", False),
    ],
)
def test_only_cpus_without_instructions_need_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, capability: str, device: str, emulated: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert isinstance(quick_bf16_products(torch.device(device)), ProductsInFloat32) == emulated
