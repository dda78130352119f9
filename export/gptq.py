"""Rounding with error feedback: weights of later inputs are adjusted to compensate for the rounding of earlier ones.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", 2023. Inputs are processed in order. The scales of each group are chosen from its weights after the
adjustments for all earlier inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jukebox_deploy.export.quantisation import (
    QuantisedWeight,
    WeightFormat,
    choose_scales,
    require_quantisable,
)

DAMPING = 0.01
"""Added to the diagonal of the second moments, relative to its mean, for directions that calibration hardly covers."""

_BLOCK = 128  # number of inputs after which the rest of the matrix is adjusted


def second_moments(rows: Tensor) -> Tensor:
    """Return the second moments `[in, in]` of a layer's inputs `[..., in]`: the sum of their outer products."""
    flat = rows.reshape(-1, rows.shape[-1]).float()
    return flat.T @ flat


def quantise_with_feedback(weight: Tensor, moments: Tensor, form: WeightFormat, dtype: torch.dtype) -> QuantisedWeight:
    """Quantise a matrix `[in, out]` so that the layer's outputs change as little as possible; scales in `dtype`.

    `moments` `[in, in]`: see `second_moments`. Raises `ExportError` like `quantise`.
    """
    weight = require_quantisable(weight, form).clone()
    feedback = _feedback(moments)
    size = form.group_size(len(weight))
    values = torch.empty(weight.shape, dtype=form.storage)
    scales: list[Tensor] = []
    scale = weight[0]
    for first in range(0, len(weight), _BLOCK):
        last = min(first + _BLOCK, len(weight))
        errors = torch.empty(last - first, weight.shape[1])
        for index in range(first, last):
            if index % size == 0:
                group = weight[index : index + size]
                scales.append(choose_scales(group, form, dtype, moments.diagonal()[index : index + size]))
                scale = scales[-1].float()
            rounded = form.round(weight[index] / scale)
            values[index] = rounded.to(form.storage)
            error = (weight[index] - rounded * scale) / feedback[index, index]
            weight[index:last] -= torch.outer(feedback[index, index:last], error)
            errors[index - first] = error
        weight[last:] -= feedback[first:last, last:].T @ errors
    return QuantisedWeight(values, torch.stack(scales))


def _feedback(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor `[in, in]` of the inverse of the damped second moments."""
    wide = moments.double()
    diagonal = wide.diagonal()
    mean = diagonal.mean().clamp(min=1e-12)
    damped = wide + torch.diag(torch.full_like(diagonal, DAMPING * float(mean)))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True).float()
