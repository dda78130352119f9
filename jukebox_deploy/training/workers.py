"""The processes of a training run, as `torchrun` starts them; one without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jukebox_deploy.training.settings import Sharding


@dataclass(frozen=True)
class Workers:
    """This process among those of its run."""

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    @contextmanager
    def current(cls) -> Iterator[Workers]:
        """As the environment says, for as long as the block lasts."""
        yield cls(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def wrap(self, module: nn.Module, sharding: Sharding) -> nn.Module:
        """The module as all processes train it together."""
        return module

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes; all must call it."""
        return tensor

    def agree(self, flag: bool) -> bool:
        """What the first process says; all must call it."""
        return flag

    def wait(self) -> None:
        """Until all processes have come here."""
