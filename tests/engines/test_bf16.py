"""bf16 arithmetic on a CPU: what PyTorch computes in bf16, operation by operation."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from jukebox_deploy.engines.eager.tensors import to_numpy
from jukebox_deploy.engines.onnxruntime.bf16 import compute_in_float32
from jukebox_deploy.engines.onnxruntime.memory import run_on_arrays

BF16 = TensorProto.BFLOAT16


def model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], outputs: list[str]) -> onnx.ModelProto:
    """A model with the input `x` `[2, 16]`."""
    results = [helper.make_tensor_value_info(name, BF16, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", BF16, [2, 16])], results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def run(graph: onnx.ModelProto, x: torch.Tensor) -> dict[str, np.ndarray]:
    compute_in_float32(graph)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in graph.graph.output]
    return dict(zip(names, run_on_arrays(session, names, {"x": to_numpy(x)}), strict=True))


def random_bf16(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def stored(name: str, tensor: torch.Tensor) -> onnx.TensorProto:
    return helper.make_tensor(name, BF16, list(tensor.shape), tensor.float().flatten().tolist())


def test_every_operation_rounds_its_result() -> None:
    """Not only the last one: with x = 1, in float32 the small term would survive two additions."""
    nodes = [helper.make_node("Add", ["x", "small"], ["sum"]), helper.make_node("Add", ["sum", "small"], ["twice"])]
    small = torch.full((1,), 2**-9).bfloat16()
    found = run(model(nodes, [stored("small", small)], ["twice"]), torch.ones(2, 16).bfloat16())["twice"]
    np.testing.assert_array_equal(found.astype(np.float32), np.ones((2, 16)))


def test_a_product_is_summed_in_float32() -> None:
    x, w = random_bf16(2, 16), random_bf16(16, 8, seed=1)
    found = run(model([helper.make_node("MatMul", ["x", "w"], ["y"])], [stored("w", w)], ["y"]), x)["y"]
    np.testing.assert_array_equal(found.astype(np.float32), (x.float() @ w.float()).bfloat16().float().numpy())


def test_several_readers_share_a_value() -> None:
    """Also where one of them is an operation that only moves it, or the value is an output itself."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["y"]),
        helper.make_node("Transpose", ["gate"], ["turned"], perm=[1, 0]),
    ]
    x = random_bf16(2, 16)
    found = run(model(nodes, [], ["gate", "y", "turned"]), x)
    gate = torch.sigmoid(x.float()).bfloat16()
    np.testing.assert_array_equal(found["gate"].astype(np.float32), gate.float().numpy())
    np.testing.assert_array_equal(found["y"].astype(np.float32), (x * gate).float().numpy())
    np.testing.assert_array_equal(found["turned"], found["gate"].T)


def test_dequantised_weights_are_bf16() -> None:
    scales, x = random_bf16(8, seed=2).abs(), random_bf16(2, 16)
    integers = torch.randint(-127, 128, (16, 8), generator=torch.Generator().manual_seed(3)).to(torch.int8)
    weight = helper.make_tensor("q", TensorProto.INT8, [16, 8], integers.numpy().tobytes(), raw=True)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scales"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    found = run(model(nodes, [weight, stored("scales", scales)], ["y"]), x)["y"]
    w = (integers.float() * scales.float()).bfloat16()
    np.testing.assert_array_equal(found.astype(np.float32), (x.float() @ w.float()).bfloat16().float().numpy())


def test_operations_on_other_types_stay_as_they_are() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["wide"], ["shares"]),
        helper.make_node("Cast", ["shares"], ["y"], to=BF16),
    ]
    graph = model(nodes, [], ["y"])
    before = graph.SerializeToString()
    assert compute_in_float32(graph) == 0
    assert graph.SerializeToString() == before
