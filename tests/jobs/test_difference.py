"""The place where a graph begins to differ: of every kind of graph, and none where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.validation import TensorParity
from jukebox_deploy.jobs.comparison.difference import Difference, find_difference, first_difference
from jukebox_deploy.jobs.opening.eager import load_model
from tests.damaged_bundles import with_flipped_weight


def look(bundle: EngineBundle, checkpoint: CheckpointBundle, graph: str) -> Difference:
    spec = bundle.graphs[graph]
    sizes = {r.symbol: min(r.maximum, {"B": 3, "T": 33}[r.symbol]) for r in spec.ranges}
    feeds = {tensor.name: random_feed(tensor, spec, bundle.manifest.config, sizes, 0) for tensor in spec.inputs}
    module = graph_module(spec, load_model(checkpoint, spec.model_level, Precision.FP32))
    pieces = [GraphFile.read(spec, bundle.paths[graph])]
    return find_difference(pieces, module, feeds, Precision.FP32)


@pytest.mark.parametrize(
    ("graph", "fewest"),
    [("vqvae_encode_0", 10), ("vqvae_decode_2", 30), ("condition_0", 20), ("prefill_2", 90), ("step_2", 90)],
)
def test_every_layer_of_a_sound_graph_agrees(
    tiny_engine_bundle: EngineBundle, tiny_checkpoint: CheckpointBundle, graph: str, fewest: int
) -> None:
    found = look(tiny_engine_bundle, tiny_checkpoint, graph)
    assert found.module is None
    assert found.agreeing >= fewest
    assert str(found).startswith(f"all {found.agreeing} layers agree within the limits: ")


@pytest.mark.parametrize(
    ("graph", "layer", "before"),
    [
        ("vqvae_encode_1", "encoders.1.blocks.1.output", 20),
        ("condition_0", "labels.artist", 0),
        ("prefill_1", "core.transformer.layers.1.attention.query_key_value", 8),
        ("step_2", "core.transformer.layers.9.attention.output", 50),
    ],
)
def test_a_damaged_layer_is_named(
    tiny_engine_bundle: EngineBundle,
    tiny_checkpoint: CheckpointBundle,
    tmp_path: Path,
    graph: str,
    layer: str,
    before: int,
) -> None:
    damaged = with_flipped_weight(tiny_engine_bundle, tmp_path / "damaged", graph, f"{layer}.weight")
    found = look(damaged, tiny_checkpoint, graph)
    assert found.module == layer
    assert found.agreeing >= before
    assert str(found).startswith(f"the difference starts in {layer} (relative error ")


def test_outputs_alone_tell_the_first_tensor() -> None:
    rows = [TensorParity("key_0", 0.0, 0.0, 1e-5), TensorParity("key_1", 1.0, 1.0, 1e-5)]
    assert first_difference(rows) == "the first tensor that differs is key_1"
    assert first_difference(rows[:1]) == ""
