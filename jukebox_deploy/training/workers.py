"""The processes of a training run as started by `torchrun`; a single one without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from jukebox_deploy.models.transformer import Layer
from jukebox_deploy.training.settings import Sharding

_PATIENCE = timedelta(days=7)  # while one process encodes songs or samples; collectives time out after 10 to 30 minutes


@dataclass(frozen=True)
class Workers:
    """This process among the processes of its run.

    Methods that all processes must call, they must call in the same order.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient: distributed.ProcessGroup | None = None  # all processes, for long waits; `None`: the default group

    @classmethod
    @contextmanager
    def current(cls) -> Iterator[Workers]:
        """Join the processes that the environment describes, for the duration of the block."""
        if not distributed.is_torchelastic_launched():
            yield cls(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            return
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        patient = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        try:
            yield cls(distributed.get_rank(), distributed.get_world_size(), device, patient)
        finally:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module, sharding: Sharding) -> nn.Module:
        """Wrap a module, which must be on the device, for joint training; all processes must call it.

        All processes begin with the weights of the first one. Gradients are those of the mean of all losses. A module
        to be sharded is changed in place.
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
        """Return the context for the passes of one piece of a batch; all processes must call it.

        `wrapped` is the result of `wrap`. Gradients are reduced over the processes only in the last piece; before it,
        each process accumulates its own. Until then, the gradients of a sharded module are unsharded.
        """
        if isinstance(wrapped, FSDPModule):
            wrapped.set_requires_gradient_sync(last)
        if isinstance(wrapped, DistributedDataParallel) and not last:
            return wrapped.no_sync()
        return nullcontext()

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes; all must call it."""
        if self.count == 1:
            return tensor
        total = tensor.detach().clone()
        distributed.all_reduce(total)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over all processes; all must call it."""
        return tensor if self.count == 1 else self.sum(tensor) / self.count

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the first process; all must call it with tensors of the same shape."""
        if self.count == 1:
            return tensor
        sent = tensor.detach().clone()
        distributed.broadcast(sent, src=0)
        return sent

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return for each flag whether any process has set it; all must call it."""
        if self.count == 1:
            return flags
        found = torch.tensor(flags, dtype=torch.int32, device=self.device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return tuple(map(bool, found.tolist()))

    def wait(self) -> None:
        """Wait until all processes have called this method, for days if need be."""
        if self.count > 1:
            distributed.barrier(self.patient)
