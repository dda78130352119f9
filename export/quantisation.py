"""Weight-only quantisation of matrices, and dequantisation.

Weights are `[in, out]`, as in the models. A scale belongs to one output column and a group of consecutive inputs: all
inputs in int8 and fp8, 32 in int4 (`INT4_GROUP`). Scales are positive and there is no zero point, because TensorRT
supports nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jukebox_deploy.contract import INT4_GROUP, LinearWeights
from jukebox_deploy.errors import ExportError
from jukebox_deploy.listing import words_of


@dataclass(frozen=True)
class WeightFormat:
    """A format for the weights of a matrix."""

    dtype: str  # ONNX's name of the element type, in lower case
    bits: int
    group: int | None  # inputs per scale; `None`: all inputs
    storage: torch.dtype  # element type in PyTorch, which has no 4-bit type
    smallest: float  # smallest value of the element type that is used
    largest: float  # largest value
    clipping: tuple[float, ...] = (1.0,)  # clipping ratios to try: clipping threshold over the group's largest weight

    @staticmethod
    def of(weights: LinearWeights) -> WeightFormat:
        """Return the format of quantised weights. Raises `ExportError` for weights that are not quantised."""
        if weights not in _FORMATS:
            raise ExportError(f"{weights} is not a format of quantised weights; choose {words_of(_FORMATS, 'or')}.")
        return _FORMATS[weights]

    def group_size(self, inputs: int) -> int:
        """Return the number of inputs per scale, for a matrix with that many inputs."""
        return inputs if self.group is None else self.group

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether the shape is that of a matrix whose inputs can be divided into whole groups."""
        return len(shape) == 2 and shape[0] % self.group_size(shape[0]) == 0

    def round(self, scaled: Tensor) -> Tensor:
        """Round to the nearest values of the format, as float32; the argument is overwritten."""
        clamped = scaled.clamp_(self.smallest, self.largest)
        return clamped.to(self.storage).float() if self.storage.is_floating_point else clamped.round_()


# Only int4 tries clipping: rounding to 8 bits is so fine that clipping a column's largest weight never pays off.
_INT4_CLIPPING = tuple(1.04 - 0.03 * step for step in range(17))
_FP8_LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448; larger values would become NaN
_FORMATS = {
    LinearWeights.INT8: WeightFormat("int8", 8, None, torch.int8, -128, 127),
    LinearWeights.INT4: WeightFormat("int4", 4, INT4_GROUP, torch.int8, -8, 7, _INT4_CLIPPING),
    LinearWeights.FP8: WeightFormat("float8e4m3fn", 8, None, torch.float8_e4m3fn, -_FP8_LARGEST, _FP8_LARGEST),
}


@dataclass(frozen=True)
class QuantisedWeight:
    """A matrix as quantised values with scales."""

    values: Tensor  # [in, out], in the `storage` dtype of its format
    scales: Tensor  # [groups, out], in the dtype in which they are stored

    def dequantise(self) -> Tensor:
        """Return the matrix `[in, out]` that engines multiply with, in the dtype of the scales."""
        inputs, outputs = self.values.shape
        grouped = self.values.view(len(self.scales), inputs // len(self.scales), outputs)
        return (grouped.float() * self.scales.float()[:, None]).to(self.scales.dtype).reshape(inputs, outputs)


def choose_scales(group: Tensor, form: WeightFormat, dtype: torch.dtype, weights: Tensor | None = None) -> Tensor:
    """Choose a scale for each column of `[inputs, out]`, rounded to `dtype`.

    Of the scales for the format's clipping ratios, it has the least squared error, to which inputs contribute with
    `weights` `[inputs]` (default: equally).
    """
    magnitude = group.abs().amax(0)
    best, least = torch.ones_like(magnitude), torch.full_like(magnitude, torch.inf)
    for ratio in form.clipping:
        scale = _positive(magnitude * (ratio / form.largest), dtype)
        error = (form.round(group / scale) * scale).sub_(group).square_()
        total = error.sum(0) if weights is None else weights @ error
        better = total < least
        best, least = torch.where(better, scale, best), torch.where(better, total, least)
    return best.to(dtype)


def _positive(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Round scales to the dtype in which they are stored, but not to zero, which a column of zeros would have."""
    smallest = torch.finfo(dtype).tiny
    return scale.clamp(min=smallest).to(dtype).to(scale.dtype)


def quantise(weight: Tensor, form: WeightFormat, dtype: torch.dtype) -> QuantisedWeight:
    """Round each weight to the nearest value of the format times its scale; scales in `dtype`.

    Raises `ExportError` for infinities or NaN, and for a shape that does not fit the format.
    """
    weight = require_quantisable(weight, form)
    groups = weight.split(form.group_size(len(weight)))
    scales = [choose_scales(group, form, dtype) for group in groups]
    values = [form.round(group / s.float()).to(form.storage) for group, s in zip(groups, scales, strict=True)]
    return QuantisedWeight(torch.cat(values), torch.stack(scales))


def require_quantisable(weight: Tensor, form: WeightFormat) -> Tensor:
    """Return the matrix in float32.

    Raises `ExportError` for infinities or NaN, and for a shape that does not fit the format.
    """
    if not form.fits(tuple(weight.shape)):
        raise ExportError(
            f"weights of shape {list(weight.shape)} cannot be quantised; expected a matrix with a multiple of "
            f"{form.group or 1} inputs."
        )
    weight = weight.float()
    if not bool(torch.isfinite(weight).all()):
        raise ExportError("a weight is infinite or NaN, so it cannot be quantised. Import the checkpoint again.")
    return weight


def column_error(expected: Tensor, found: Tensor) -> float:
    """Return the largest relative error of an output column: the norm of the error over that of the expected column."""
    norms = expected.float().norm(dim=0)
    errors = (expected.float() - found.float()).norm(dim=0)
    return float((errors / norms.clamp(min=1e-12)).max())
