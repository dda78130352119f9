"""A layer that TensorRT computes wrongly is named, by an engine built again with the results of its layers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.engines.tensorrt.build import BuildOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.jobs.comparison.difference import marked_values, run_on_cpu
from jukebox_deploy.jobs.comparison.marked_engines import MarkedEngines, marked_graph
from jukebox_deploy.jobs.verification.ladder import VerifyRequest
from jukebox_deploy.jobs.verification.report import Check
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.damaged_bundles import with_flipped_weight
from tests.engines import fake_tensorrt
from tests.engines.host_device import HostDevice

LAYER = "core.transformer.layers.1.mlp.expand"
GRAPHS = ("prefill_1", "step_1")
MODULE = "jukebox_deploy.jobs.comparison.marked_engines.build_engine"


@pytest.fixture(scope="module")
def wrong(tiny_engine_bundle: EngineBundle, tmp_path_factory: pytest.TempPathFactory) -> EngineBundle:
    """What a TensorRT computes that is wrong in one layer."""
    folder = tmp_path_factory.mktemp("wrong") / "onnx"
    return with_flipped_weight(tiny_engine_bundle, folder, "step_1", f"{LAYER}.weight")


@pytest.fixture
def engines(
    tiny_engine_bundle: EngineBundle, wrong: EngineBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> EngineBundle:
    """Engines that this TensorRT built from sound graphs."""
    monkeypatch.setattr(
        "jukebox_deploy.engines.tensorrt.engine.open_platform", lambda target, options: fake_tensorrt.platform(target)
    )
    made = fake_tensorrt.save_engines(wrong, tmp_path / "engines")
    entries = {
        name: replace(entry, options={**entry.options, **tiny_engine_bundle.manifest.source_facts(name)})
        for name, entry in made.manifest.graphs.items()
    }
    write_manifest(made.folder, replace(made.manifest, graphs=entries))
    return open_bundle(made.folder)


def builder(graphs: EngineBundle, built: list[str]) -> Any:
    """A builder whose engines compute with the weights of these graphs."""

    def build(path: Path, spec: Any, engine: Path, *others: Any) -> None:
        built.append(spec.name)
        copy = graphs.folder / f"marked {len(built)} {path.name}"
        shutil.copy(path, copy)
        engine.write_bytes(fake_tensorrt.engine_content(spec, copy))

    return build


def failed(engines: EngineBundle, checkpoint: CheckpointBundle, graphs: EngineBundle) -> list[Check]:
    report = verify_bundle(engines, checkpoint, VerifyRequest(GRAPHS), exported=graphs)
    return [check for check in report.checks if check.failed]


def test_the_layer_is_named(
    engines: EngineBundle,
    wrong: EngineBundle,
    tiny_engine_bundle: EngineBundle,
    tiny_checkpoint: CheckpointBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[str] = []
    monkeypatch.setattr(MODULE, builder(wrong, built))
    origins = {check.graph: check.origin for check in reversed(failed(engines, tiny_checkpoint, tiny_engine_bundle))}
    assert set(origins) == set(GRAPHS)
    for origin in origins.values():
        assert origin.startswith("the ONNX graph agrees with the model, so it is the engine that differs; the first")
        assert f"results of its layers as outputs, the difference starts in {LAYER} (relative error" in origin
    assert sorted(built) == sorted(GRAPHS)  # once each


def test_an_engine_that_is_right_when_built_again(
    engines: EngineBundle,
    tiny_engine_bundle: EngineBundle,
    tiny_checkpoint: CheckpointBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = shutil.copytree(tiny_engine_bundle.folder, tmp_path / "sound")
    monkeypatch.setattr(MODULE, builder(open_bundle(sound), []))
    origin = failed(engines, tiny_checkpoint, tiny_engine_bundle)[0].origin
    assert origin.endswith("the engine file differs from its graph, or the difference comes from fusing layers")


def test_an_engine_that_cannot_be_built_again(
    engines: EngineBundle,
    tiny_engine_bundle: EngineBundle,
    tiny_checkpoint: CheckpointBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(*arguments: Any) -> None:
        raise EngineError("step_1: out of memory.")

    monkeypatch.setattr(MODULE, build)
    origin = failed(engines, tiny_checkpoint, tiny_engine_bundle)[0].origin
    assert origin.startswith("the ONNX graph agrees with the model, so it is the engine that differs; the first tensor")
    assert origin.endswith(". The layer was not found: step_1: out of memory.")


@pytest.mark.parametrize(("capability", "asked"), [("8.9", ("8.9",)), ("9.0", ())])
def test_a_gpu_that_the_builder_has_no_name_for_is_not_asked_for(
    tiny_engine_bundle: EngineBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str, asked: object
) -> None:
    """The flavour may still build for it, with what it builds for by default."""
    found = []

    def build(path: Path, spec: GraphSpec, engine: Path, options: BuildOptions, weights: object) -> None:
        found.append(options.compute_capabilities)

    monkeypatch.setattr(MODULE, build)
    monkeypatch.setattr(MODULE.replace("build_engine", "known_capabilities"), lambda flavour: {"8.9": "SM89"})
    piece = GraphFile.read(tiny_engine_bundle.graphs["step_1"], tiny_engine_bundle.paths["step_1"])
    platform = fake_tensorrt.platform(Target.TENSORRT_RTX, HostDevice(compute_capability=capability))
    MarkedEngines(platform, ()).build(piece, tmp_path)
    assert found == [asked]


@pytest.mark.parametrize("graph", ["step_1", "prefill_1", "vqvae_decode_2"])
def test_nvidias_builder_takes_marked_graphs(tiny_engine_bundle: EngineBundle, tmp_path: Path, graph: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    spec, entry = tiny_engine_bundle.graphs[graph], tiny_engine_bundle.manifest.graphs[graph]
    sizes = {r.symbol: min(r.maximum, {"B": 2, "T": 33}[r.symbol]) for r in spec.ranges}
    feeds = {t.name: random_feed(t, spec, tiny_engine_bundle.manifest.config, sizes, 0) for t in spec.inputs}
    piece = GraphFile.read(spec, tiny_engine_bundle.paths[graph])
    names = list(marked_values(piece.model).values())
    assert len(names) > 10
    marked = marked_graph(piece, dict(zip(names, run_on_cpu(piece, names, feeds), strict=True)), sizes)
    platform = fake_tensorrt.platform(Target.TENSORRT_RTX)
    assert MarkedEngines(platform, entry.weights).build(marked, tmp_path).stat().st_size > 1000
