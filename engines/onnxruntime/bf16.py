"""bf16 arithmetic on a CPU, for which ONNX Runtime has no kernels.

Operations compute in float32, and their results are rounded to bf16, as kernels of GPUs do that sum in float32 and
round once. This takes at least the time and the memory of float32, so it is for comparisons rather than for use.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_MOVING = frozenset(
    [
        *("Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split"),
        *("Squeeze", "TensorScatter", "Transpose", "Unsqueeze", "Where"),
    ]
)
"""Operators that only move elements, of which ONNX Runtime has kernels for every type."""


def compute_in_float32(model: ModelProto) -> int:
    """Let a graph's operations with bf16 inputs or results compute in float32; return how many there are.

    The model is changed in place. All its tensors, weights and caches included, keep their types and their values.
    """
    in_bf16 = _values_in_bf16(model)
    nodes: list[NodeProto] = []
    widened: dict[str, str] = {}  # values in float32, by the name of the value in bf16
    changed = 0
    for node in model.graph.node:
        if node.op_type in _MOVING or in_bf16.isdisjoint((*node.input, *node.output)):
            nodes.append(node)
            continue
        nodes += [*_widen_inputs(node, in_bf16, widened), node, *_round_results(node, in_bf16)]
        changed += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed


def _values_in_bf16(model: ModelProto) -> Set[str]:
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.BFLOAT16} | {
        tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.BFLOAT16
    }


def _widen_inputs(node: NodeProto, in_bf16: Set[str], widened: dict[str, str]) -> Iterator[NodeProto]:
    """Let a node read float32; yield the casts of inputs that no node before it has read."""
    from onnx import TensorProto, helper

    for index, name in enumerate(node.input):
        if name not in in_bf16:
            continue
        if name not in widened:
            widened[name] = f"{name}/float32"
            yield helper.make_node("Cast", [name], [widened[name]], to=TensorProto.FLOAT)
        node.input[index] = widened[name]


def _round_results(node: NodeProto, in_bf16: Set[str]) -> Iterator[NodeProto]:
    from onnx import TensorProto, helper

    for index, name in enumerate(node.output):
        if name in in_bf16:
            node.output[index] = f"{name}/unrounded"
            yield helper.make_node("Cast", [node.output[index]], [name], to=TensorProto.BFLOAT16)
