"""Small graphs made by hand, with the tables that they follow, and a bundle of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Precision, Role, TensorSpec, numpy_dtype
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart, Manifest, Target
from jukebox_deploy.graph_cutting import cut_graph, layers_of_parts
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.presets import preset

HEADS, LENGTH, WIDTH = 2, 8, 16
SLOTS = DimensionRange("B", 1, 4, 16)


def cache_spec(dtype: str = "float16") -> GraphSpec:
    """Attention of one query over a cache: the smallest step there is."""
    tensors = (
        TensorSpec("position", "int64", ("B",), Role.STATE),
        TensorSpec("query", dtype, ("B", HEADS, 1, WIDTH), Role.INPUT),
        TensorSpec("result", dtype, ("B", HEADS, 1, WIDTH), Role.OUTPUT),
        TensorSpec("key_0", dtype, ("B", HEADS, LENGTH, WIDTH), Role.STATE, in_place=True),
    )
    return GraphSpec(GraphKind.STEP, 0, tensors, (SLOTS,))


def value_infos(tensors: list[tuple[str, TensorSpec]]) -> list[Any]:
    return [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(numpy_dtype(t.dtype)), list(t.dims))
        for name, t in tensors
    ]


def make_model(spec: GraphSpec, nodes: list[Any], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model with the inputs and outputs of a table."""
    graph = helper.make_graph(
        nodes,
        spec.name,
        value_infos([(t.input_name, t) for t in spec.inputs]),
        value_infos([(t.output_name, t) for t in spec.outputs]),
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def cache_model(spec: GraphSpec) -> onnx.ModelProto:
    """`result = softmax(query @ keys^T) @ keys @ weight`; the query is also the new key."""
    dtype = numpy_dtype(spec.tensor("query").dtype)
    nodes = [
        helper.make_node(
            "TensorScatter",
            ["past_key_0", "query", "past_position"],
            ["present_key_0"],
            "update",
            axis=2,
            mode="linear",
        ),
        helper.make_node("Transpose", ["present_key_0"], ["transposed"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["query", "transposed"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "present_key_0"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "weight"], ["result"]),
        helper.make_node("Add", ["past_position", "one"], ["present_position"]),
    ]
    weight = np.linspace(-1, 1, WIDTH * WIDTH).reshape(WIDTH, WIDTH).astype(dtype)
    return make_model(spec, nodes, {"weight": weight, "one": np.array([1], np.int64)})


def decode_spec() -> GraphSpec:
    """Codes `[B, T]` -> `[B, 1, 2*T]`: two dynamic dimensions, one of them a multiple."""
    tensors = (
        TensorSpec("codes", "int64", ("B", "T"), Role.INPUT),
        TensorSpec("audio", "float32", ("B", 1, "2*T"), Role.OUTPUT),
    )
    return GraphSpec(GraphKind.VQVAE_DECODE, 0, tensors, (SLOTS, DimensionRange("T", 1, 64, 256)))


def decode_model() -> onnx.ModelProto:
    """An embedding and a transposed convolution."""
    spec, rng = decode_spec(), np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["codebook", "codes"], ["rows"], axis=0),
        helper.make_node("Transpose", ["rows"], ["channels"], perm=[0, 2, 1]),
        helper.make_node("ConvTranspose", ["channels", "kernel"], ["audio"], strides=[2], pads=[1, 1]),
    ]
    weights = {
        "codebook": rng.standard_normal((8, 4)).astype(np.float32),
        "kernel": rng.standard_normal((4, 1, 4)).astype(np.float32),
    }
    return make_model(spec, nodes, weights)


def make_manifest(entries: list[GraphEntry], precision: Precision = Precision.FP16) -> Manifest:
    """The manifest of an ONNX bundle before its files are hashed."""
    return Manifest(
        target=Target.ONNXRUNTIME,
        precision=precision,
        config=preset("tiny"),
        checkpoint="0" * 64,
        graphs={entry.spec.name: entry for entry in entries},
        tools={"onnx": onnx.__version__},
    )


def save_cut_bundle(folder: Path, parts: int, target: Target = Target.TENSORRT_RTX) -> EngineBundle:
    """Step and prefill of the top prior of `tiny` in parts, and a decoder in one piece; nothing in them could run.

    A file has as many KiB as its part has layers.
    """
    folder.mkdir(parents=True)
    config, entries = preset("tiny"), []
    depth = config.prior(2).transformer.depth
    for spec in (declare_graphs(config, GraphOptions(Precision.FP16))[name] for name in ("step_2", "prefill_2")):
        pieces = tuple(GraphPart(part, f"{part.name}.engine") for part in cut_graph(spec, config.prior(2), parts))
        for piece, layers in zip(pieces, layers_of_parts(depth, parts), strict=True):
            (folder / piece.file).write_bytes(bytes(1024 * len(layers)))
        options = {"activation_bytes": 256, "layers_of_parts": list(range(100, 100 + parts))}
        entries.append(GraphEntry(spec, "", compute_capabilities=("8.9",), options=options, parts=pieces))
    (folder / "vqvae_decode_0.engine").write_bytes(b"engine")
    entries.append(GraphEntry(decode_spec(), "vqvae_decode_0.engine"))
    write_manifest(folder, replace(make_manifest(entries), target=target))
    return open_bundle(folder)


def save_bundle(folder: Path, precision: Precision = Precision.FP16) -> EngineBundle:
    """An ONNX bundle of the two graphs; the weights of the step lie in a file of their own."""
    folder.mkdir(parents=True)
    step, decode = cache_spec(precision.dtype), decode_spec()
    onnx.save(
        cache_model(step),
        folder / "step_0.onnx",
        save_as_external_data=True,
        location="step_0.weights",
        size_threshold=0,
    )
    onnx.save(decode_model(), folder / "vqvae_decode_0.onnx")
    entries = [GraphEntry(step, "step_0.onnx", ("step_0.weights",)), GraphEntry(decode, "vqvae_decode_0.onnx")]
    write_manifest(folder, make_manifest(entries, precision))
    return open_bundle(folder)
