"""A moving average of the weights: what is evaluated and saved in place of the last ones.

Source: specification section 18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jukebox_deploy.errors import ConfigError


def default_decay(batch: int) -> float:
    """The decay for a batch of so many examples, of all processes together: longer where steps see less."""
    return max(0.0, 1 - batch / 8 / 1000)


class WeightAverage:
    """Averages of a module's trained parameters; buffers and frozen parameters are not averaged."""

    def __init__(
        self, module: nn.Module, decay: float, *, every: int = 1, device: torch.device | str | None = None
    ) -> None:
        """Begin with the current weights.

        Args:
            module: what is averaged.
            decay: how much of an average stays in one training step.
            every: training steps between updates; averages on another device are dear to update.
            device: where the averages are kept; `None`: beside the weights.
        """
        if not 0 <= decay < 1 or every < 1:
            raise ConfigError(
                "weight average: expected a decay from 0 to below 1 and 1 or more steps between updates, "
                f"found {decay} and {every}."
            )
        self.decay = decay
        self.every = every
        self._module = module
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._averages = {name: p.detach().to(device or p.device, copy=True) for name, p in trained.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The averages by the parameters' names; what is written into them is averaged on from there."""
        return dict(self._averages)

    @torch.no_grad()
    def update(self, step: int | None = None) -> None:
        """Follow the weights, in those training steps that are multiples of `every`.

        With a step, counted from 0, the decay grows towards its value: a short run would otherwise end
        with much of its random beginning in the average.
        """
        if step is not None and step % self.every:
            return
        decay = self.decay if step is None else min(self.decay, (1 + step) / (10 + step))
        weights = [self._module.get_parameter(name).to(tensor.device) for name, tensor in self._averages.items()]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay**self.every)

    def copy_to(self, module: nn.Module) -> None:
        """Write the averages into a module with the same parameters."""
        _write(module, self._averages)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the averages in the averaged module, and its own weights again afterwards."""
        weights = {name: self._module.get_parameter(name).detach().clone() for name in self._averages}
        try:
            self.copy_to(self._module)
            yield
        finally:
            _write(self._module, weights)


@torch.no_grad()
def _write(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        module.get_parameter(name).copy_(tensor)
