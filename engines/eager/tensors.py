"""Conversion between NumPy's arrays and PyTorch's tensors, and of PyTorch's out-of-memory errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.engines.device import OutOfDeviceMemoryError

if TYPE_CHECKING:
    from torch import Tensor


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Return the values of a tensor (also bfloat16) as an array, which shares the memory of a tensor on the CPU."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array: np.ndarray = tensor.numpy()
    return array


def to_tensor(array: np.ndarray, device: str) -> Tensor:
    """Copy the values of an array (also bfloat16) to a device; on the CPU, the tensor may share the array's memory."""
    import torch

    contiguous = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(contiguous.view(np.uint16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(contiguous).to(device)


@contextmanager
def explaining_memory_errors(what: str) -> Iterator[None]:
    """Turn PyTorch's out-of-memory error into `OutOfDeviceMemoryError`; `what` begins the message."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        said = str(error).split(". ")[0]
        raise OutOfDeviceMemoryError(
            f"{what}: {said.rstrip('.')}. Ask for fewer slots, or for smaller numbers (--precision fp16 on export)."
        ) from error
