"""Values and scales: bounds of the error, positive scales, and the bytes as ONNX packs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import QuantisedWeight, WeightFormat, column_error, quantise
from jukebox_deploy.export.weights import WeightFile, quantised_tensors, write_weights

INT8, INT4, FP8 = (WeightFormat.of(LinearWeights(name)) for name in ("int8", "int4", "fp8"))
INTEGERS, FORMATS = [INT8, INT4], [INT8, INT4, FP8]


def matrix(inputs: int = 96, outputs: int = 7) -> torch.Tensor:
    return torch.randn(inputs, outputs, generator=torch.Generator().manual_seed(1))


def stored(folder: Path, weight: QuantisedWeight, form: WeightFormat) -> WeightFile:
    return write_weights(folder / "w", quantised_tensors("layer.weight", weight, form))


@pytest.mark.parametrize("form", INTEGERS)
def test_no_weight_is_off_by_more_than_half_a_step(form: WeightFormat) -> None:
    weight = matrix()
    quantised = quantise(weight, replace(form, clipping=(1.0,)), torch.float32)
    steps = quantised.scales.repeat_interleave(form.group_size(96), dim=0)
    assert bool(((quantised.dequantise() - weight).abs() <= 0.5001 * steps).all())


def test_floating_values_keep_the_relative_error_small() -> None:
    weight = matrix()
    error = (quantise(weight, FP8, torch.float32).dequantise() - weight).abs()
    smallest_normal = weight.abs().amax(0) / FP8.largest * 2**-6
    assert bool((error <= torch.maximum(weight.abs() * 2**-4, smallest_normal * 2**-4)).all())


def test_the_largest_weight_stays_a_number_though_its_scale_was_rounded_down() -> None:
    weight = torch.full((32, 9), 1.0) * torch.linspace(0.1, 3.0, 9)
    dequantised = quantise(weight, FP8, torch.float16).dequantise()
    torch.testing.assert_close(dequantised.float(), weight, rtol=2e-3, atol=0)


def test_the_number_of_scales() -> None:
    assert quantise(matrix(), FP8, torch.float32).scales.shape == (1, 7)
    assert quantise(matrix(), INT8, torch.float32).scales.shape == (1, 7)
    assert quantise(matrix(), INT4, torch.float32).scales.shape == (3, 7)


def test_the_search_for_scales_pays() -> None:
    weight = matrix(320, 64)
    plain, searched = (quantise(weight, form, torch.float32) for form in (replace(INT4, clipping=(1.0,)), INT4))
    errors = [float((q.dequantise() - weight).norm()) for q in (plain, searched)]
    assert errors[1] < 0.95 * errors[0]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scales_are_positive_in_their_dtype_even_for_zeros(form: WeightFormat, dtype: torch.dtype) -> None:
    weight = matrix()
    weight[:, 2] = 0.0
    weight[:, 3] *= 1e-9  # below what half precision can hold
    quantised = quantise(weight, form, dtype)
    assert quantised.scales.dtype is dtype
    assert bool((quantised.scales > 0).all())
    assert bool(torch.isfinite(quantised.dequantise()).all())
    assert not quantised.dequantise()[:, 2].any()


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_no_number_is_refused(value: float) -> None:
    weight = matrix()
    weight[5, 5] = value
    with pytest.raises(ExportError, match="infinite or NaN"):
        quantise(weight, INT8, torch.float32)


def test_inputs_must_fall_into_whole_groups() -> None:
    assert INT8.fits((30, 4))
    assert not INT4.fits((30, 4))
    with pytest.raises(ExportError, match=r"\[30, 4\] cannot be quantised.* multiple of 32 inputs"):
        quantise(matrix(30, 4), INT4, torch.float32)


def test_weights_in_the_precision_have_no_format() -> None:
    with pytest.raises(ExportError, match="choose int8, int4 or fp8"):
        WeightFormat.of(LinearWeights.AS_PRECISION)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_was_written_is_read_back(tmp_path: Path, form: WeightFormat, dtype: torch.dtype) -> None:
    quantised = quantise(matrix(), form, dtype)
    file = stored(tmp_path, quantised, form)
    assert file.quantised == ["layer.weight"]
    read = file.load_quantised("layer.weight")
    assert read.values.dtype is form.storage
    torch.testing.assert_close(read.values.float(), quantised.values.float(), rtol=0, atol=0)
    torch.testing.assert_close(read.scales, quantised.scales, rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMATS)
def test_the_bytes_mean_the_same_to_onnx(tmp_path: Path, form: WeightFormat) -> None:
    quantised = quantise(matrix(), form, torch.float32)
    file = stored(tmp_path, quantised, form)
    place = file.tensors["layer.weight"]
    raw = file.path.read_bytes()[place.offset : place.offset + place.length]
    assert len(raw) == 96 * 7 * form.bits // 8
    integers = onnx.TensorProto(
        name="w", data_type=onnx.TensorProto.DataType.Value(form.dtype.upper()), dims=[96, 7], raw_data=raw
    )
    scales = numpy_helper.from_array(file.external_tensor("layer.weight_scale").numpy(), "s")
    how: dict[str, Any] = {"axis": 1} if form.group is None else {"axis": 0, "block_size": form.group}
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"], **how)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [96, 7])
    model = helper.make_model(
        helper.make_graph([node], "g", [], [output], [integers, scales]), opset_imports=[helper.make_opsetid("", 24)]
    )
    (found,) = ReferenceEvaluator(model).run(None, {})
    np.testing.assert_array_equal(found, quantised.dequantise().numpy())


def test_the_worst_column_counts() -> None:
    weight = torch.ones(4, 2)
    changed = weight.clone()
    changed[0, 1] = 3.0
    assert column_error(weight, changed) == pytest.approx(1.0)
    assert column_error(weight, weight) == 0.0
