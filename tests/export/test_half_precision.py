"""What overflows or rounds too much in half precision is not computed in it: asserted over the graphs themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, Precision
from jukebox_deploy.export.parallel import TraceRequest, trace_all
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from tests.export.small_models import separate_lyrics_config, unlabelled_config

IN_SINGLE = ("Softmax", "LayerNormalization", "CumSum", "ArgMax", "TopK")
MOVES_ONLY = ("Where", "Cast", "Reshape", "Transpose", "Gather", "Slice", "TensorScatter", "Squeeze", "Unsqueeze")
CONFIGS = {
    "cross": separate_lyrics_config(),
    "prime": unlabelled_config(AttentionOrder.FACTORED_PRIME_AND_DENSE, depth=16),
}


@dataclass(frozen=True)
class Traced:
    """A graph, the dtypes of its values, and who makes them."""

    config: JukeboxConfig
    precision: Precision
    graph: onnx.GraphProto
    dtypes: dict[str, int]
    makers: dict[str, onnx.NodeProto]

    def source(self, name: str) -> onnx.NodeProto:
        """The node that a value comes from, through those that only move numbers."""
        node = self.makers[name]
        while node.op_type in MOVES_ONLY:
            # What is written into a cache, and the scores that a mask lets through, are the second input.
            name = node.input[1 if node.op_type in ("Where", "TensorScatter") else 0]
            if name not in self.makers:
                return node
            node = self.makers[name]
        return node

    def constant(self, name: str) -> np.ndarray:
        (found,) = [tensor for tensor in self.graph.initializer if tensor.name == name]
        return np.asarray(onnx.numpy_helper.to_array(found))


def trace(config: JukeboxConfig, kind: GraphKind, precision: Precision) -> Traced:
    spec = declare_graphs(config, GraphOptions(precision, logits=True))[f"{kind}_0"]
    ((_, model),) = trace_all(TraceRequest(config, [spec], precision), processes=1)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True)
    values = (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
    dtypes = {value.name: value.type.tensor_type.elem_type for value in values}
    dtypes |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    return Traced(
        config, precision, proto.graph, dtypes, {name: node for node in proto.graph.node for name in node.output}
    )


CASES = [
    ("cross", GraphKind.STEP, Precision.FP16),
    ("cross", GraphKind.PREFILL, Precision.FP16),
    ("cross", GraphKind.STEP, Precision.BF16),
    ("prime", GraphKind.STEP, Precision.FP16),
]
HALF = {Precision.FP16: onnx.TensorProto.FLOAT16, Precision.BF16: onnx.TensorProto.BFLOAT16}


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def traced(request: pytest.FixtureRequest) -> Traced:
    config, kind, precision = request.param
    return trace(CONFIGS[config], kind, precision)


def softmaxes(traced: Traced) -> Iterator[onnx.NodeProto]:
    """Those of attentions; the two others, of a step's choice, have its logits before them."""
    for node in traced.graph.node:
        if node.op_type == "Softmax" and traced.source(node.input[0]).op_type == "MatMul":
            yield node


def test_norms_softmax_and_choice_are_in_single_precision(traced: Traced) -> None:
    nodes = [node for node in traced.graph.node if node.op_type in IN_SINGLE]
    assert {"Softmax", "LayerNormalization"} <= {node.op_type for node in nodes}
    assert {traced.dtypes[node.input[0]] for node in nodes} == {onnx.TensorProto.FLOAT}


def test_products_are_in_half_precision_but_for_the_logits(traced: Traced) -> None:
    products = [node for node in traced.graph.node if node.op_type in ("MatMul", "Gemm")]
    singles = [node for node in products if traced.dtypes[node.input[0]] != HALF[traced.precision]]
    assert [node.output[0] for node in singles] == (["logits"] if "logits" in traced.dtypes else [])
    assert {traced.dtypes[name] for node in singles for name in node.input} <= {onnx.TensorProto.FLOAT}


def test_queries_and_keys_are_scaled_before_their_product_and_scores_never(traced: Traced) -> None:
    expected = traced.config.prior(0).transformer.head_width ** -0.25
    found = list(softmaxes(traced))
    assert found
    for softmax in found:
        product = traced.source(softmax.input[0])
        for operand in product.input:
            scaled = traced.source(operand)
            if scaled.op_type in MOVES_ONLY:  # the lyrics' keys, which the graph `lyrics` scales
                assert scaled.input[0].startswith("cross_key")
                continue
            assert scaled.op_type == "Mul"
            assert float(traced.constant(scaled.input[1]).astype(np.float32)) == pytest.approx(expected, rel=4e-3)


def test_what_hides_scores_is_a_number_of_single_precision(traced: Traced) -> None:
    before = [traced.makers[softmax.input[0]] for softmax in softmaxes(traced)]
    masks = [node for node in before if node.op_type == "Where"]
    assert masks
    assert {traced.dtypes[mask.input[2]] for mask in masks} == {onnx.TensorProto.FLOAT}
    assert all(np.isfinite(traced.constant(mask.input[2])).all() for mask in masks)
