"""The size of the blocks that columns of integers are divided into."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engines.onnxruntime.build import build_ready_bundle
from jukebox_deploy.engines.onnxruntime.integer_blocks import block_size
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile, OnnxRuntimeOptions, open_session
from tests.engines import handmade_prior


def graph(*matrices, **attributes):
    """Products with matrices of integers, `[inputs, outputs]` each."""
    nodes, integers = [], []
    for number, shape in enumerate(matrices):
        nodes.append(
            helper.make_node("DequantizeLinear", [f"q{number}", "scale"], [f"w{number}"], **(attributes or {"axis": 1}))
        )
        nodes.append(helper.make_node("MatMul", ["x", f"w{number}"], [f"y{number}"]))
        integers.append(numpy_helper.from_array(np.zeros(shape, np.int8), f"q{number}"))
    row = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None])
    return helper.make_model(helper.make_graph(nodes, "products", [row], [], integers))


@pytest.mark.parametrize(
    ("matrices", "expected"),
    [
        ([(1920, 1440), (480, 1920), (1920, 1920)], 64),  # the released upsamplers: 480 are filled up to 512
        ([(4800, 3600), (1200, 4800)], 64),
        ([(64, 192), (64, 64)], 64),
        ([(32, 96), (8, 32)], 32),  # half of a block of 64 would be empty
        ([], 64),
    ],
)
def test_the_size_is_the_one_that_reads_least(matrices, expected):
    assert block_size(graph(*matrices)) == expected


def test_what_has_blocks_of_its_own_is_left_alone():
    assert block_size(graph((32, 96))) == 32
    assert block_size(graph((32, 96), axis=0, block_size=32)) == 64  # nothing to choose for


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("inputs", [32, 64, 480, 512])
def test_a_row_alone_has_the_same_bits_as_beside_others(tmp_path, inputs, threads):
    """So a song does not depend on how many are made with it. Blocks of 128 and 256 fail here on AVX-512 VNNI."""
    pytest.importorskip("onnxruntime")
    random = np.random.default_rng(3)
    outputs = 96
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(random.integers(-127, 128, (inputs, outputs)).astype(np.int8), "q"),
        numpy_helper.from_array(random.uniform(0.001, 0.01, outputs).astype(np.float32), "scale"),
    ]
    row, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in (("x", inputs), ("y", outputs))
    )
    model = helper.make_model(
        helper.make_graph(nodes, "product", [row], [result], weights),
        opset_imports=[helper.make_opsetid("", 24)],
        ir_version=10,
    )
    onnx.save(model, tmp_path / "product.onnx")
    graph = GraphFile.read(handmade_prior.tables()["step_0"], tmp_path / "product.onnx")
    session = open_session(graph, OnnxRuntimeOptions(threads=threads))
    rows = random.standard_normal((17, inputs)).astype(np.float32)
    alone = np.concatenate([session.run(None, {"x": rows[number : number + 1]})[0] for number in range(17)])
    for count in (2, 3, 4, 16, 17):
        np.testing.assert_array_equal(session.run(None, {"x": rows[:count]})[0], alone[:count], err_msg=str(count))


def test_a_ready_graph_has_such_blocks(tmp_path):
    pytest.importorskip("onnxruntime")
    exported = handmade_prior.save_integers(tmp_path / "exported", LinearWeights.INT8)
    ready = build_ready_bundle(exported, tmp_path / "ready")
    (product,) = (n for n in onnx.load(ready.paths["step_0"]).graph.node if n.op_type == "MatMulNBits")
    found = {attribute.name: attribute.i for attribute in product.attribute}
    assert found["K"] == handmade_prior.WIDTH
    assert found["block_size"] == block_size(onnx.load(exported.paths["step_0"])) != 32
