"""NVIDIA's own parser and builder take every kind of graph, in every arithmetic, for every GPU that can run it.

One engine is for all GPUs at once, so a graph that one of them could not run would fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jukebox_deploy.attention_patterns import AttentionOrder, layer_patterns
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphKind, LinearWeights, Precision
from jukebox_deploy.engines.tensorrt.build import BuildOptions, BuildSummary
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.build_job import CheckpointBuild, build_from_checkpoint
from jukebox_deploy.jobs.export_job import ExportRequest
from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from tests.export.small_models import separate_lyrics_config, unlabelled_config, write_checkpoint
from tests.jobs.traced_once import traced_once

pytest.importorskip("tensorrt_rtx")

ALL = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
SAMPLED = [order for order in AttentionOrder if "summary" not in order]
AS_PRECISION, INT8, INT4, FP8 = LinearWeights
ARITHMETICS = [
    *((precision, AS_PRECISION) for precision in Precision),
    *((precision, weights) for precision in (Precision.FP16, Precision.BF16) for weights in (INT8, INT4, FP8)),
]
FEWER = {FP8: ALL[3:]}  # GPUs of a stack by how its weights are stored; without 7.5 all others


@pytest.fixture(scope="module", autouse=True)
def _graphs_are_traced_once() -> Iterator[None]:
    with traced_once():
        yield


def least_depth(order: AttentionOrder) -> int:
    """Layers until every pattern of the order's first twenty has come."""
    patterns = layer_patterns(order, 20)
    return max(patterns.index(pattern) for pattern in patterns) + 1


def build(
    checkpoint: CheckpointBundle,
    folder: Path,
    precision: Precision,
    weights: LinearWeights = AS_PRECISION,
    graphs: tuple[str, ...] = ("step_0",),
) -> dict[str, BuildSummary]:
    """Export and build for all GPUs; by graph, what came of it."""
    plain = weights is AS_PRECISION
    stored = (
        QuantisationRequest()
        if plain
        else QuantisationRequest(weights, calibration=Calibration.NONE, judge_quality=False)
    )
    options = GraphOptions(precision, slots=(1, 2, 4))
    export = ExportRequest(options, graphs, False, TensorRtCheck.NEVER, processes=1, quantisation=stored)
    request = CheckpointBuild(export, BuildOptions(compute_capabilities=ALL, skip_refused=True))
    _, summaries = build_from_checkpoint(checkpoint, folder / "engines", request, processes=1)
    return {summary.graph: summary for summary in summaries}


@pytest.mark.parametrize(("precision", "weights"), ARITHMETICS)
@pytest.mark.parametrize("order", SAMPLED)
def test_every_attention_order_in_every_arithmetic(
    tmp_path: Path, order: AttentionOrder, precision: Precision, weights: LinearWeights
) -> None:
    config = unlabelled_config(order, least_depth(order))
    built = build(write_checkpoint(config, tmp_path / "checkpoint"), tmp_path, precision, weights)
    caches = 2 * sum(pattern != "cross" for pattern in config.prior(0).transformer.patterns)
    assert [summary.caches_in_place for summary in built.values()] == [caches, caches]
    assert built["step_0"].compute_capabilities == FEWER.get(weights, ALL[1:])


@pytest.mark.parametrize(("precision", "weights"), ARITHMETICS)
def test_every_arithmetic(tmp_path: Path, precision: Precision, weights: LinearWeights) -> None:
    checkpoint = write_checkpoint(separate_lyrics_config(), tmp_path / "checkpoint")
    built = build(checkpoint, tmp_path, precision, weights, ("lyrics_0", "step_0"))
    assert set(built) == {"lyrics_0", "prefill_0", "step_0"}
    assert built["step_0"].compute_capabilities == FEWER.get(weights, ALL[1:])
    assert built["step_0"].kernels
    # TensorRT-RTX multiplies int4 as it is only where matrices are larger than these.
    assert weights is INT4 or built["step_0"].warnings == ()  # none of weights that every step writes out
    reasons = " ".join(built["step_0"].refused)
    assert all(f"compute capability {gpu} " in reasons for gpu in ALL if gpu not in FEWER.get(weights, ALL[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "weights"), ARITHMETICS)
@pytest.mark.parametrize("order", SAMPLED)
def test_every_attention_order_at_the_size_of_mid(
    tmp_path: Path, order: AttentionOrder, precision: Precision, weights: LinearWeights
) -> None:
    checkpoint = write_checkpoint(unlabelled_config(order, depth=24, width=512), tmp_path / "checkpoint")
    assert len(build(checkpoint, tmp_path, precision, weights)) == 2


@pytest.mark.parametrize(("precision", "weights"), ARITHMETICS)
def test_every_graph_of_tiny(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, precision: Precision, weights: LinearWeights
) -> None:
    built = build(tiny_checkpoint, tmp_path, precision, weights, graphs=())
    decoders = [name for name in built if name.startswith(GraphKind.VQVAE_DECODE)]
    assert len(decoders) == 3
    assert all(built[name].compute_capabilities == ALL for name in decoders)
    steps = [built[f"step_{level}"] for level in range(3)]
    assert all(step.compute_capabilities == FEWER.get(weights, ALL[1:]) for step in steps)
