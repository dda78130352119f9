"""A prior so small that its graphs are made by hand, for every backend: attention over one cache.

The step writes the query as the newest key and attends; the prefill writes two keys at once. The
query carries the slot's number into everything, so that mixed-up slots show.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from jukebox_deploy.contract import (
    DimensionRange,
    GraphKind,
    GraphSpec,
    LinearWeights,
    Precision,
    Role,
    TensorSpec,
)
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.engines.manifest import GraphEntry
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.presets import preset
from tests.engines.handmade_graphs import decode_model, decode_spec, make_manifest, make_model

HEADS, LENGTH, WIDTH = 2, 32, 256  # a head's cache has 32 KiB, four keys to a page
SLOTS = DimensionRange("B", 1, 2, 4)
WEIGHT = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32) / 16


def tables() -> dict[str, GraphSpec]:
    shared = (
        TensorSpec("position", "int64", ("B",), Role.STATE),
        TensorSpec("query", "float32", ("B", HEADS, 1, WIDTH), Role.INPUT),
        TensorSpec("key_0", "float32", ("B", HEADS, LENGTH, WIDTH), Role.STATE, in_place=True),
    )
    result = TensorSpec("result", "float32", ("B", HEADS, 1, WIDTH), Role.OUTPUT)
    step = GraphSpec(GraphKind.STEP, 0, (*shared, result), (SLOTS,))
    prefill = GraphSpec(GraphKind.PREFILL, 0, shared, (SLOTS,))
    return {spec.name: spec for spec in (step, prefill, decode_spec())}


def _scatter(update: str) -> onnx.NodeProto:
    names = ["past_key_0", update, "past_position"]
    return helper.make_node("TensorScatter", names, ["present_key_0"], axis=2, mode="linear")


def models() -> dict[str, onnx.ModelProto]:
    specs = tables()
    step = [
        _scatter("query"),
        helper.make_node("Transpose", ["present_key_0"], ["transposed"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["query", "transposed"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present_key_0"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "weight"], ["result"]),
        helper.make_node("Add", ["past_position", "moved"], ["present_position"]),
    ]
    prefill = [
        helper.make_node("Concat", ["query", "query"], ["queries"], axis=2),
        _scatter("queries"),
        helper.make_node("Add", ["past_position", "moved"], ["present_position"]),
    ]
    return {
        "step_0": make_model(specs["step_0"], step, {"weight": WEIGHT, "moved": np.array([1], np.int64)}),
        "prefill_0": make_model(specs["prefill_0"], prefill, {"moved": np.array([2], np.int64)}),
        "vqvae_decode_0": decode_model(),
    }


def _write_keys(keys: Tensor, update: Tensor, position: Tensor) -> None:
    for slot, first in enumerate(position):
        keys[slot, :, first : first + update.shape[2]] = update[slot]


def _step(position: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
    _write_keys(keys, query, position)
    shares = torch.softmax(query @ keys.transpose(2, 3), dim=-1)
    return position + 1, keys, shares @ keys @ torch.from_numpy(WEIGHT)


def _prefill(position: Tensor, query: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
    _write_keys(keys, torch.cat([query, query], dim=2), position)
    return position + 2, keys


def _decode(codes: Tensor) -> tuple[Tensor, ...]:
    weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in decode_model().graph.initializer}
    rows = weights["codebook"][codes].transpose(1, 2)
    return (torch.nn.functional.conv_transpose1d(rows, weights["kernel"], stride=2, padding=1),)


def eager_engine() -> EagerEngine:
    functions: dict[str, GraphFunction] = {"step_0": _step, "prefill_0": _prefill, "vqvae_decode_0": _decode}
    return EagerEngine(preset("tiny"), tables(), lambda spec: functions[spec.name])


def save(folder: Path) -> EngineBundle:
    """The ONNX graphs as a bundle."""
    folder.mkdir()
    for name, model in models().items():
        onnx.save(model, folder / f"{name}.onnx")
    entries = [GraphEntry(spec, f"{name}.onnx") for name, spec in tables().items()]
    write_manifest(folder, make_manifest(entries, Precision.FP32))
    return open_bundle(folder)


def _store_as_integers(model: onnx.ModelProto, weights: LinearWeights) -> onnx.ModelProto:
    """The matrix `weight` as int8 with a scale per column, or as int4 with one per column and 32 inputs."""
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name == "weight"]:
        model.graph.initializer.remove(tensor)
    most, group, attributes, dtype = 127, WIDTH, {"axis": 1}, np.dtype(np.int8)
    if weights is LinearWeights.INT4:
        most, group, attributes = 7, 32, {"axis": 0, "block_size": 32}
        dtype = helper.tensor_dtype_to_np_dtype(TensorProto.INT4)
    scales = np.abs(WEIGHT.reshape(-1, group, WIDTH)).max(axis=1) / most
    integers = np.round(WEIGHT / scales.repeat(group, axis=0)).astype(np.int8).astype(dtype)
    scales = scales if group < WIDTH else scales[0]
    model.graph.initializer.extend([numpy_helper.from_array(integers, "w"), numpy_helper.from_array(scales, "s")])
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["weight"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    model.graph.node.insert(0, node)
    return model


def _multiply_the_query(model: onnx.ModelProto) -> onnx.ModelProto:
    """A prefill that has the step's matrix too."""
    for node in model.graph.node:
        node.input[:] = ["mixed" if name == "query" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("MatMul", ["query", "weight"], ["mixed"]))
    return model


def save_integers(folder: Path, weights: LinearWeights = LinearWeights.INT8) -> EngineBundle:
    """A bundle whose step and prefill multiply with one matrix of integers, in a file that they share."""
    folder.mkdir()
    graphs = models()
    ours = {"step_0": graphs["step_0"], "prefill_0": _multiply_the_query(graphs["prefill_0"])}
    for name, model in ours.items():
        # Both put the matrix first, so the second file is as good for the first graph.
        (folder / "prior_0.weights").unlink(missing_ok=True)
        path = folder / f"{name}.onnx"
        onnx.save_model(
            _store_as_integers(model, weights), path, save_as_external_data=True, location="prior_0.weights"
        )
    onnx.save(graphs["vqvae_decode_0"], folder / "vqvae_decode_0.onnx")
    entries = [GraphEntry(s, f"{n}.onnx", ("prior_0.weights",) if n in ours else ()) for n, s in tables().items()]
    write_manifest(folder, replace(make_manifest(entries, Precision.FP32), linear_weights=weights))
    return open_bundle(folder)


def onnx_engine(folder: Path) -> OnnxRuntimeEngine:
    files = {name: folder / f"{name}.onnx" for name in tables()}
    return OnnxRuntimeEngine(preset("tiny"), tables(), files)
