"""Weight-only quantisation: small values and scales for a matrix, and back.

Weights are `(in, out)`, as the models hold them. A scale belongs to one output column and a group of
neighbouring inputs: all of them in int8 and fp8, 32 in int4 (the state width 480 of the released
upsamplers has no larger power of two as a divisor). It is positive, and there is no zero point,
because TensorRT takes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jukebox_deploy.contract import INT4_GROUP, LinearWeights
from jukebox_deploy.errors import ExportError


@dataclass(frozen=True)
class WeightFormat:
    """One way to store a matrix."""

    dtype: str  # as ONNX spells it, in lower case
    bits: int
    group: int | None  # inputs per scale; `None`: all of them
    storage: torch.dtype  # of the values in PyTorch, which has no type of 4 bits
    smallest: float  # value
    largest: float  # value
    clipping: tuple[float, ...] = (1.0,)  # largest weights to try as the largest value, over the largest of the group

    @staticmethod
    def of(weights: LinearWeights) -> WeightFormat:
        """The format that the option names; `ExportError` where weights are stored in the precision."""
        if weights not in _FORMATS:
            raise ExportError(f"{weights} is no format of quantised weights; choose {', '.join(_FORMATS)}.")
        return _FORMATS[weights]

    def group_size(self, inputs: int) -> int:
        """Inputs per scale of a matrix with so many inputs."""
        return inputs if self.group is None else self.group

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a matrix of this shape falls into whole groups."""
        return len(shape) == 2 and shape[0] % self.group_size(shape[0]) == 0

    def round(self, scaled: Tensor) -> Tensor:
        """The nearest values, as float32; changes its argument."""
        clamped = scaled.clamp_(self.smallest, self.largest)
        return clamped.to(self.storage).float() if self.storage.is_floating_point else clamped.round_()


# In 8 bits the rounding is so fine that clipping the largest weight of a column always costs more than it gains.
_INT4_CLIPPING = tuple(1.04 - 0.03 * step for step in range(17))
_FP8_LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448; what is larger would become no number
_FORMATS = {
    LinearWeights.INT8: WeightFormat("int8", 8, None, torch.int8, -128, 127),
    LinearWeights.INT4: WeightFormat("int4", 4, INT4_GROUP, torch.int8, -8, 7, _INT4_CLIPPING),
    LinearWeights.FP8: WeightFormat("float8e4m3fn", 8, None, torch.float8_e4m3fn, -_FP8_LARGEST, _FP8_LARGEST),
}


@dataclass(frozen=True)
class QuantisedWeight:
    """A matrix as small values and scales."""

    values: Tensor  # [in, out] in the storage of its format
    scales: Tensor  # [groups, out] in the dtype they are stored in

    def dequantise(self) -> Tensor:
        """The matrix `[in, out]` that engines multiply with, in the scales' dtype."""
        inputs, outputs = self.values.shape
        grouped = self.values.view(len(self.scales), inputs // len(self.scales), outputs)
        return (grouped.float() * self.scales.float()[:, None]).to(self.scales.dtype).reshape(inputs, outputs)


def choose_scales(group: Tensor, form: WeightFormat, dtype: torch.dtype, weights: Tensor | None = None) -> Tensor:
    """A scale per column of `[inputs, out]`, rounded to `dtype`: the one with the least squared error of a grid.

    `weights` `[inputs]`: how much an error of each input counts.
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
    """Scales as they will be stored, none of them zero: a column of zeros has any scale."""
    smallest = torch.finfo(dtype).tiny
    return scale.clamp(min=smallest).to(dtype).to(scale.dtype)


def quantise(weight: Tensor, form: WeightFormat, dtype: torch.dtype) -> QuantisedWeight:
    """Round each weight to the nearest value times its scale; scales in `dtype`.

    Raises `ExportError` for a matrix that holds infinities or NaN, or does not fall into whole groups.
    """
    weight = require_quantisable(weight, form)
    groups = weight.split(form.group_size(len(weight)))
    scales = [choose_scales(group, form, dtype) for group in groups]
    values = [form.round(group / s.float()).to(form.storage) for group, s in zip(groups, scales, strict=True)]
    return QuantisedWeight(torch.cat(values), torch.stack(scales))


def require_quantisable(weight: Tensor, form: WeightFormat) -> Tensor:
    """The matrix in float32; `ExportError` for infinities or NaN, and for a shape without whole groups."""
    if not form.fits(tuple(weight.shape)):
        raise ExportError(f"a matrix {list(weight.shape)} does not fall into groups of {form.group} inputs.")
    weight = weight.float()
    if not bool(torch.isfinite(weight).all()):
        raise ExportError("a weight is infinite or no number, and cannot be quantised. Import the checkpoint again.")
    return weight


def column_error(expected: Tensor, found: Tensor) -> float:
    """The largest error of an output column, as a norm over that of the column expected."""
    norms = expected.float().norm(dim=0)
    errors = (expected.float() - found.float()).norm(dim=0)
    return float((errors / norms.clamp(min=1e-12)).max())
