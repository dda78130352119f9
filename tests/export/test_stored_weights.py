"""`DequantizeLinear` in front of `MatMul`, in a small hand-made graph."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, LinearWeights, Role, TensorSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import WeightFormat
from jukebox_deploy.export.stored_weights import store_quantised

SPEC = GraphSpec(
    GraphKind.STEP,
    0,
    (TensorSpec("x", "float32", ("B", 64), Role.INPUT), TensorSpec("y", "float32", ("B", 8), Role.OUTPUT)),
    (DimensionRange("B", 1, 1, 4),),
)


def traced(operator: str = "MatMul", swapped: bool = False) -> ir.Model:
    """`y = x @ w`, and a parameter that nothing uses."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    x = ir.Value(name="x", shape=ir.Shape(["B", 64]), type=float32)
    w = ir.Value(name="w", shape=ir.Shape([64, 8]), type=float32)
    idle = ir.Value(name="idle", shape=ir.Shape([64, 8]), type=float32)
    node = ir.node(operator, [w, x] if swapped else [x, w])
    node.outputs[0].name = "y"
    return ir.Model(ir.Graph([x, w, idle], node.outputs, nodes=[node], opset_imports={"": 24}), ir_version=10)


@pytest.mark.parametrize(
    ("weights", "attributes", "scales", "dtype"),
    [
        (LinearWeights.INT8, {"axis": 1}, [8], ir.DataType.INT8),
        (LinearWeights.INT4, {"axis": 0, "block_size": 32}, [2, 8], ir.DataType.INT4),
        (LinearWeights.FP8, {"axis": 1}, [8], ir.DataType.FLOAT8E4M3FN),
    ],
)
def test_a_weight_is_dequantised_where_it_is_used(weights, attributes, scales, dtype):
    model = traced()
    assert store_quantised(SPEC, model, {"w"}, WeightFormat.of(weights)) == 1
    dequantise, multiply = model.graph
    assert dequantise.op_type == "DequantizeLinear"
    assert {name: attribute.as_int() for name, attribute in dequantise.attributes.items()} == attributes
    assert multiply.inputs[1] is dequantise.outputs[0]
    inputs = {value.name: value for value in model.graph.inputs}
    assert list(inputs) == ["x", "w", "idle", "w_scale"]
    assert inputs["w"].dtype is dtype
    assert list(inputs["w_scale"].shape or ()) == scales


def test_what_a_graph_does_not_use_is_no_input_of_it():
    model = traced()
    assert store_quantised(SPEC, model, {"idle", "elsewhere"}, WeightFormat.of(LinearWeights.INT8)) == 0
    assert [value.name for value in model.graph.inputs] == ["x", "w"]


@pytest.mark.parametrize("model", [traced("Add"), traced(swapped=True)])
def test_anything_but_a_product_with_it_is_refused(model):
    with pytest.raises(ExportError, match=r"step_0: w goes into (Add|MatMul), expected one MatMul as its matrix"):
        store_quantised(SPEC, model, {"w"}, WeightFormat.of(LinearWeights.INT8))
