"""Between NumPy's arrays and PyTorch's tensors, and PyTorch's failures in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.engines.device import OutOfDeviceMemoryError

if TYPE_CHECKING:
    from torch import Tensor


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The same numbers in host memory, bfloat16 included; on a CPU the same memory."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: np.ndarray = tensor.numpy()
    return array


def to_tensor(array: np.ndarray, device: str) -> Tensor:
    """The same numbers on a device, bfloat16 included."""
    import torch

    contiguous = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.uint16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(contiguous).to(device)


@contextmanager
def memory_in_words(what: str) -> Iterator[None]:
    """PyTorch's own error as `OutOfDeviceMemoryError`, where the memory of a GPU is used up by `what`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        said = str(error).split(". ")[0]
        raise OutOfDeviceMemoryError(
            f"{what}: {said.rstrip('.')}. Ask for fewer slots, or for smaller numbers (--precision fp16 on export)."
        ) from error
