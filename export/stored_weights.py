"""Quantised weights in a traced graph: a `DequantizeLinear` before the `MatMul`.

This is standard ONNX. The runtime fuses both nodes into one kernel: ONNX Runtime for integers on a CPU, TensorRT on a
GPU.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.quantisation import WeightFormat
from jukebox_deploy.export.tracing import parameters
from jukebox_deploy.export.weights import SCALES
from jukebox_deploy.listing import words_of


def store_quantised(spec: GraphSpec, model: ir.Model, names: Collection[str], form: WeightFormat) -> int:
    """Replace those of the named parameters that a traced graph uses by quantised values with scales.

    Returns their number. Raises `ExportError` for a parameter that is used for anything but a single `MatMul`.
    """
    chosen = [value for value in parameters(spec, model) if value.name in names]
    for weight in chosen:
        if weight.uses():
            _dequantise(spec, model.graph, weight, form)
        else:  # a prefill does not use the output of its last layer
            model.graph.inputs.remove(weight)
    return sum(bool(weight.uses()) for weight in chosen)


def _dequantise(spec: GraphSpec, graph: ir.Graph, weight: ir.Value, form: WeightFormat) -> None:
    uses = list(weight.uses())
    if len(uses) != 1 or uses[0].node.op_type != "MatMul" or uses[0].idx != 1:
        found = words_of(use.node.op_type for use in uses) or "nothing"
        raise ExportError(
            f"{spec.name}: {weight.name} goes into {found}, expected one MatMul as its matrix; keep it with --keep."
        )
    assert weight.shape is not None
    assert weight.type is not None
    inputs, outputs = weight.shape.numpy()
    # One scale per column is a vector along the last axis; groups of inputs are blocks along the first axis.
    shape = [outputs] if form.group is None else [inputs // form.group, outputs]
    attributes = {"axis": 1} if form.group is None else {"axis": 0, "block_size": form.group}
    scales = ir.Value(name=f"{weight.name}{SCALES}", shape=ir.Shape(shape), type=weight.type)
    node = ir.node("DequantizeLinear", [weight, scales], attributes)
    (result,) = node.outputs
    result.name, result.shape, result.type = f"{weight.name}_dequantised", weight.shape, weight.type
    graph.insert_before(uses[0].node, node)
    uses[0].node.replace_input_with(1, result)
    weight.type = ir.TensorType(ir.DataType[form.dtype.upper()])
    graph.inputs.append(scales)
