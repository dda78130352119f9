"""Gathering of a run's tensors, which may be sharded, into whole tensors, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.listing import shape_text


def gather(tensors: Mapping[str, Tensor], *, keep: bool = True) -> dict[str, Tensor]:
    """Return whole copies of the tensors on the CPU; all processes must call it.

    One tensor is gathered at a time, because a device may have no room for all of them. A process that does not `keep`
    them takes part, but gets an empty dict.
    """
    copies = ((name, _whole_copy(tensor, keep)) for name, tensor in tensors.items())
    return {name: copy for name, copy in copies if copy is not None}


def _whole_copy(tensor: Tensor, keep: bool) -> Tensor | None:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().to("cpu", copy=True) if keep else None


@torch.no_grad()
def scatter(tensors: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> None:
    """Fill tensors with the values of whole tensors from `gather`; all processes must call it with the same values.

    Raises `CheckpointError` if names or shapes differ.
    """
    if unlike := sorted(set(tensors) ^ set(whole)):
        raise CheckpointError(f"the training checkpoint belongs to another model: only one of them has {unlike[0]}.")
    for name, tensor in tensors.items():
        value = whole[name].to(tensor.device, tensor.dtype)
        if value.shape != tensor.shape:
            raise CheckpointError(
                f"the training checkpoint belongs to another model: {name} is {shape_text(value.shape)}, "
                f"expected {shape_text(tensor.shape)}."
            )
        if isinstance(tensor, DTensor):
            value = distribute_tensor(value, tensor.device_mesh, tensor.placements)
        tensor.copy_(value)
