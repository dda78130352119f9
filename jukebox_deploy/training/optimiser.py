"""Adam as in the original, and the norm for gradient clipping.

The arithmetic is that of PyTorch's fused AdamW. Only the places of epsilon and of the weight decay differ, which is
compensated by passing adjusted values. Source: specification section 18.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.adamw import adamw

_LEAST_SCALE = 1e-8  # smallest scale of moments in half precision
_FIRST, _SECOND = "exp_avg", "exp_avg_sq"  # PyTorch's names of the moments
_SCALES = {f"{_FIRST}_scale", f"{_SECOND}_scale"}


@dataclass(frozen=True)
class GradientNorm:
    """Norm of the whole gradient, and the number to divide the gradient by."""

    norm: float  # without the loss scale
    divisor: float  # the loss scale, or more if the norm is clipped
    finite: bool


def gradient_norm(parameters: Iterable[Tensor], loss_scale: float = 1.0, clip: float = 0.0) -> GradientNorm:
    """Compute the norm of gradients that include a loss scale; sharded ones are summed over all processes.

    `clip` is the largest norm that a step may have, 0 for no limit. Parameters without a gradient are skipped.
    """
    # In float32: the squares of scaled half-precision gradients overflow.
    gradients = [_in_float(p.grad) for p in parameters if p.grad is not None]
    total = get_total_norm(gradients)
    norm = float(total.full_tensor() if isinstance(total, DTensor) else total) / loss_scale
    finite = math.isfinite(norm)
    return GradientNorm(norm, loss_scale * max(1.0, norm / clip) if clip and finite else loss_scale, finite)


class JukeboxAdam(Optimizer):
    """Adam with epsilon added to the root of the second moment before its bias correction.

    With `a = lr * sqrt(1 - beta2**t) / (1 - beta1**t)`, a step is
    `p <- p - a * (m / (sqrt(v) + eps) + weight_decay * p)`. The moments exist from the beginning. Those of
    half-precision parameters are stored in half precision with one scale each. The parameters of a group share `t`, so
    each of them must have a gradient either in every step or never.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters and their moments."""
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            self.state[parameter] = _fresh_state(parameter)

    def moments(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all tensors of the optimiser's state, as `PARAMETER.MOMENT`, for saving and for restoring in place.

        `parameters` are those of this optimiser by name; others are ignored.
        """
        return {
            f"{name}.{key}": value
            for name, parameter in parameters.items()
            if parameter in self.state
            for key, value in self.state[parameter].items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from another optimiser's `state_dict`."""
        super().load_state_dict(state_dict)
        # PyTorch casts everything to the parameters' dtypes, but half precision is too coarse for the scales.
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            for name in self.state[parameter].keys() & _SCALES:
                self.state[parameter][name] = state_dict["state"][number][name].to(parameter.device)

    @torch.no_grad()
    def step(self, divisor: float = 1.0) -> None:  # type: ignore[override]  # a closure would not know the divisor
        """Update the parameters that have a gradient; gradients are first divided by `divisor` in place."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved:
                self._step_group(moved, group, divisor)

    def _step_group(self, parameters: Sequence[Parameter], group: Mapping[str, Any], divisor: float) -> None:
        states = [self.state[parameter] for parameter in parameters]
        values = [_in_float(parameter.data) for parameter in parameters]
        gradients = [_in_float(parameter.grad) for parameter in parameters if parameter.grad is not None]
        first, second = ([_unpacked(state, name) for state in states] for name in (_FIRST, _SECOND))
        if divisor != 1:
            torch._foreach_div_(gradients, divisor)
        beta1, beta2 = group["betas"]
        t = int(states[0]["step"]) + 1
        root = math.sqrt(1 - beta2**t)
        adamw(
            values,
            gradients,
            first,
            second,
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            # AdamW adds epsilon after the bias correction of the root, and multiplies the decay by lr instead of `a`.
            eps=group["eps"] / root,
            weight_decay=group["weight_decay"] * root / (1 - beta1**t),
        )
        for parameter, state, value, m, v in zip(parameters, states, values, first, second, strict=True):
            if _is_half(parameter):
                parameter.copy_(value)
                _pack(state, _FIRST, m)
                _pack(state, _SECOND, v)


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype.itemsize == 2


def _in_float(tensor: Tensor) -> Tensor:
    """Return the tensor itself, or a float32 copy if it is in half precision."""
    return tensor.float() if _is_half(tensor) else tensor


def _fresh_state(parameter: Parameter) -> dict[str, Tensor]:
    state = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in (_FIRST, _SECOND)}
    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    if _is_half(parameter):
        state |= {name: torch.zeros((), device=parameter.device) for name in _SCALES}
    return state


def _unpacked(state: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a moment in float32; if it is stored in float32, this is the stored tensor itself."""
    moment = state[name]
    return moment.float() * state[f"{name}_scale"] if _is_half(moment) else moment


def _pack(state: Mapping[str, Tensor], name: str, moment: Tensor) -> None:
    """Store a moment in half precision, scaled so that its largest element is at the end of the range."""
    stored, scale = state[name], state[f"{name}_scale"]
    scale.copy_(_LEAST_SCALE + moment.abs().max() / torch.finfo(stored.dtype).max)
    stored.copy_(moment / scale)
