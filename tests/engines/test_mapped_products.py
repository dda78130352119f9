"""Weights that stay mapped: products divided by rows, and engines that open without packing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jukebox_deploy.engines.onnxruntime import mapped_products
from jukebox_deploy.engines.onnxruntime import sessions as onnxruntime_sessions
from jukebox_deploy.engines.onnxruntime.mapped_products import divide_products
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile, OnnxRuntimeOptions, open_session
from tests.engines import handmade_prior

onnxruntime = pytest.importorskip("onnxruntime")

ROWS, COLUMNS = 96, 40


@pytest.fixture(autouse=True)
def every_size_is_large(monkeypatch):
    monkeypatch.setattr(mapped_products, "SMALLEST", 1024)
    monkeypatch.setattr(onnxruntime_sessions, "LARGE_WEIGHTS", 1024)


def save(folder, weights, nodes, rows=ROWS):
    """A graph over matrices in a weight file, read without them."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, rows])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, None])]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "products", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 24)],
        ir_version=10,
    )
    path = folder / "products.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="products.weights", size_threshold=0)
    return path


def matrix(rows=ROWS, columns=COLUMNS):
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


def product(name="y"):
    return helper.make_node("MatMul", ["x", "w"], [name])


def run(model, folder, x):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


@pytest.mark.parametrize(("threads", "pieces"), [(2, 8), (3, 12), (5, None), (1, None), (32, 96)])
def test_a_matrix_is_divided_among_the_threads(tmp_path, threads, pieces):
    weight = matrix()
    path = save(tmp_path, {"w": weight}, [product()])
    model = onnx.load(path, load_external_data=False)
    assert divide_products(model, threads) == (pieces is not None)
    (found,) = [t for t in model.graph.initializer if t.name == "w"]
    assert list(found.dims) == ([ROWS, COLUMNS] if pieces is None else [pieces, ROWS // pieces, COLUMNS])
    x = np.random.default_rng(1).standard_normal((1, ROWS)).astype(np.float32)
    np.testing.assert_allclose(run(model, tmp_path, x), x @ weight, rtol=1e-5, atol=1e-5)


def test_small_matrices_and_those_with_other_uses_stay(tmp_path):
    nodes = [product("a"), helper.make_node("Gemm", ["x", "w"], ["b"]), helper.make_node("Add", ["a", "b"], ["y"])]
    shared = onnx.load(save(tmp_path, {"w": matrix()}, nodes), load_external_data=False)
    assert divide_products(shared, 2) == 0
    small = onnx.load(save(tmp_path, {"w": matrix(4, 8)}, [product()], rows=4), load_external_data=False)
    before = small.SerializeToString()
    assert divide_products(small, 2) == 0
    assert small.SerializeToString() == before


def test_integer_weights_are_always_packed(tmp_path):
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=1), product()]
    weights = {"q": matrix().astype(np.int8), "s": np.ones(COLUMNS, np.float32)}
    graph = GraphFile.read(handmade_prior.tables()["step_0"], save(tmp_path, weights, nodes))
    assert not graph.can_stay_mapped()


@pytest.mark.parametrize(("slots", "divided"), [(1, True), (2, False), (None, False)])
def test_only_a_step_of_one_slot_is_divided(tmp_path, slots, divided):
    graph = GraphFile.read(handmade_prior.tables()["step_0"], save(tmp_path, {"w": matrix()}, [product()]))
    session = open_session(graph, OnnxRuntimeOptions(threads=2, map_weights=True), slots)
    assert session.get_session_options().get_session_config_entry("session.disable_prepacking") == "1"
    assert any(node.op_type == "ReduceSum" for node in graph.model.graph.node) == divided


def test_a_step_is_packed_unless_asked(tmp_path):
    graph = GraphFile.read(handmade_prior.tables()["step_0"], save(tmp_path, {"w": matrix()}, [product()]))
    session = open_session(graph, OnnxRuntimeOptions(threads=2), 1)
    assert session.get_session_options().get_session_config_entry("session.disable_prepacking") == "0"


def test_weights_are_packed_side_by_side_unless_they_are_large(tmp_path, monkeypatch):
    nodes = [product("a"), helper.make_node("MatMul", ["a", "v"], ["y"])]
    weights = {"w": matrix(), "v": matrix(COLUMNS, COLUMNS)}
    graph = GraphFile.read(handmade_prior.tables()["step_0"], save(tmp_path, weights, nodes))
    x = np.random.default_rng(1).standard_normal((1, ROWS)).astype(np.float32)
    found = {}
    for room, expected in ((graph.weight_bytes, "1"), (graph.weight_bytes - 1, "0")):
        monkeypatch.setattr(onnxruntime_sessions, "PARALLEL_PACKING_LIMIT", room)
        session = open_session(graph, OnnxRuntimeOptions(threads=2), 1)
        assert session.get_session_options().get_session_config_entry("session.prepack.enable_parallel") == expected
        (found[expected],) = session.run(None, {"x": x})
    np.testing.assert_array_equal(found["1"], found["0"])
