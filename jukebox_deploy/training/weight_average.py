"""Moving average of the weights, which is evaluated and saved instead of the last weights.

Source: specification section 18.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def default_decay(batch: int) -> float:
    """Return the default decay for a batch of that many examples, counted over all processes.

    The smaller the batch, the more steps the average spans.
    """
    return max(0.0, 1 - batch / 8 / 1000)


class WeightAverage:
    """Averages of a module's trained parameters; buffers and frozen parameters are not averaged."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Begin with the current weights; `decay` is the share of the average that a training step keeps."""
        self.decay = decay
        self._module = module
        self._averages = {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """Return the averages by the parameters' names; they can be restored by writing to these tensors."""
        return dict(self._averages)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the averages after a training step, counted from 0.

        The decay is lower in the first steps: otherwise the averages of a short run would still contain much of the
        random initial weights.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        weights: list[Tensor] = [self._module.get_parameter(name) for name in self._averages]
        torch._foreach_lerp_(list(self._averages.values()), weights, 1 - decay)
