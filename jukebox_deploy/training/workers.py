"""The processes of a training run, as `torchrun` starts them; one without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from jukebox_deploy.models.transformer import Layer
from jukebox_deploy.training.settings import Sharding


@dataclass(frozen=True)
class Workers:
    """This process among those of its run. What all must call, all must call in the same order."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    @contextmanager
    def current(cls) -> Iterator[Workers]:
        """As the environment says, for as long as the block lasts."""
        if not distributed.is_torchelastic_launched():
            yield cls(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            return
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        try:
            yield cls(distributed.get_rank(), distributed.get_world_size(), device)
        finally:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module, sharding: Sharding) -> nn.Module:
        """The module, which is on the device, as all processes train it together, from the weights of the first.

        Gradients are those of the mean of all losses. A sharded module is changed in place. All must call it.
        """
        if self.count == 1:
            return module
        if sharding is Sharding.REPLICATED:
            return DistributedDataParallel(module, gradient_as_bucket_view=True)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(self.broadcast(parameter))
        mesh = init_device_mesh(self.device.type, (self.count,))
        for part in module.modules():
            if isinstance(part, Layer):
                fully_shard(part, mesh=mesh)
        fully_shard(module, mesh=mesh)
        return module

    def reducing(self, wrapped: object, *, last: bool) -> AbstractContextManager[object]:
        """For the passes of one piece of a batch through what `wrap` gave: only the last one's gradients are reduced.

        Until then each process adds up its own; those of a sharded module are whole for as long. All must call it.
        """
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
        if isinstance(wrapped, DistributedDataParallel) and not last:
            return wrapped.no_sync()
        return nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes; all must call it."""
        if self.count == 1:
            return tensor
        total = tensor.detach().clone()
        distributed.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes; all must call it."""
        return tensor if self.count == 1 else self.sum(tensor) / self.count

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The first process's tensor; all must call it with tensors of the same shape."""
        if self.count == 1:
            return tensor
        sent = tensor.detach().clone()
        distributed.broadcast(sent, src=0)
        return sent

    def agree(self, flag: bool) -> bool:
        """What the first process says; all must call it."""
        return bool(self.broadcast(torch.tensor(flag, device=self.device)))

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.count > 1:
            distributed.barrier()
