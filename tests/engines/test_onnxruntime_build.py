"""Integer graphs made ready ahead of time: the same sums, fewer files' worth of weights, and who may run them."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest

from jukebox_deploy.contract import GraphKind, LinearWeights, Precision, Role
from jukebox_deploy.engines.bundle import open_bundle, write_manifest
from jukebox_deploy.engines.onnxruntime import ready as onnxruntime_ready
from jukebox_deploy.engines.onnxruntime.build import build_ready_bundle, is_ready
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.sessions import (
    GraphFile,
    OnnxRuntimeOptions,
    open_session,
)
from jukebox_deploy.errors import EngineError, JukeboxError
from jukebox_deploy.presets import preset
from tests.damaged_bundles import with_changed_manifest
from tests.engines import handmade_prior

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A bundle whose step and prefill have one matrix of integers."""
    return handmade_prior.save_integers(tmp_path_factory.mktemp("integers") / "bundle")


@pytest.fixture(scope="module")
def ready(exported, tmp_path_factory):
    exported = replace(exported, manifest=replace(exported.manifest, sampling={"total_seconds": 60.0}))
    return build_ready_bundle(exported, tmp_path_factory.mktemp("ready") / "bundle")


def run(bundle, options=None):
    """What the states and the result are after a prefill and two steps of two slots."""
    engine = OnnxRuntimeEngine(preset("tiny"), bundle.graphs, bundle.paths, options)
    session = engine.prior_session(0, 2)
    query = np.random.default_rng(2).standard_normal((handmade_prior.HEADS, 1, handmade_prior.WIDTH)).astype(np.float32)
    for slot in range(2):
        session.write("query", slot, query * (slot + 1))
    session.prefill(range(2))
    session.step(2)
    names = [t.name for t in session.spec.tensors if t.role is not Role.INPUT]
    return {(name, slot): session.read(name, slot) for name in names for slot in range(2)}


@pytest.mark.parametrize("rounded", [True, False])
def test_a_ready_graph_gives_the_same_bits(exported, ready, rounded):
    options = OnnxRuntimeOptions(round_activations=rounded)
    expected, found = run(exported, options), run(ready, options)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=str(key))


def test_so_do_integers_of_four_bits(tmp_path):
    exported = handmade_prior.save_integers(tmp_path / "exported", LinearWeights.INT4)
    expected, found = run(exported), run(build_ready_bundle(exported, tmp_path / "ready"))
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=str(key))


def test_rounded_activations_are_a_choice_of_whoever_opens(ready):
    rounded, whole = (run(ready, OnnxRuntimeOptions(round_activations=choice)) for choice in (True, False))
    assert not np.array_equal(rounded["result", 0], whole["result", 0])


def test_the_model_still_says_how_it_is_sampled(ready):
    assert ready.manifest.sampling == {"total_seconds": 60.0}


def test_only_graphs_with_integers_are_made_ready(exported, ready):
    assert [name for name, entry in ready.manifest.graphs.items() if is_ready(entry)] == ["step_0", "prefill_0"]
    operators = {node.op_type for node in onnx.load(ready.paths["step_0"], load_external_data=False).graph.node}
    assert "MatMulNBits" in operators
    assert "DequantizeLinear" not in operators
    assert ready.paths["vqvae_decode_0"].read_bytes() == exported.paths["vqvae_decode_0"].read_bytes()
    facts = ready.manifest.graphs["step_0"].options
    assert facts["onnxruntime"]["version"] == ready.manifest.tools["onnxruntime"]
    assert facts["onnx_sha256"] == [exported.manifest.files["step_0.onnx"].sha256]
    assert facts["weights_sha256"] == [exported.manifest.files["prior_0.weights"].sha256]
    assert open_bundle(ready.folder).graphs == exported.graphs  # and every hash is right


def test_equal_tensors_lie_in_a_file_once(ready):
    """The step and the prefill of a released model share gigabytes."""
    step, prefill = (GraphFile.read(ready.graphs[n], ready.paths[n]).weight_bytes for n in ("step_0", "prefill_0"))
    assert min(step, prefill) >= handmade_prior.WIDTH**2
    assert (ready.folder / "prior_0.weights").stat().st_size < step + prefill


@pytest.mark.parametrize(
    ("maker", "said"),
    [
        (onnxruntime_ready.Maker("0.1", "x86_64"), r"made ready by ONNX Runtime 0\.1 on x86_64, and this is .*again"),
        (onnxruntime_ready.Maker("0.1", "riscv"), r"made ready by ONNX Runtime 0\.1 on riscv, and this is .*again"),
    ],
)
def test_another_runtime_or_machine_is_refused(ready, maker, said):
    graph = GraphFile.read(ready.graphs["step_0"], ready.paths["step_0"])
    del graph.model.metadata_props[:]
    onnxruntime_ready.mark_ready(graph.model, maker)
    with pytest.raises(EngineError, match=said):
        open_session(graph, OnnxRuntimeOptions())


def test_a_gpu_is_refused(ready):
    made = onnxruntime_ready.maker_of(onnx.load(ready.paths["step_0"], load_external_data=False))
    assert made is not None
    with pytest.raises(EngineError, match=r"made ready for a CPU, and the provider is cuda\. Build it again"):
        onnxruntime_ready.require_maker("step_0.onnx", made, import_onnxruntime(), "cuda")


def test_what_cannot_be_made_ready(exported, ready, tmp_path):
    with pytest.raises(EngineError, match="was made ready already"):
        build_ready_bundle(ready, tmp_path / "again")
    with pytest.raises(EngineError, match=r"has no graph step_9; it has "):
        build_ready_bundle(exported, tmp_path / "none", ["step_9"])
    floats = handmade_prior.save(tmp_path / "floats")
    with pytest.raises(EngineError, match=r"nothing in .*floats can be prepared, which is for int8 and int4 weights"):
        build_ready_bundle(floats, tmp_path / "none")
    in_bf16 = with_changed_manifest(exported, tmp_path / "bf16", precision=Precision.BF16)
    with pytest.raises(EngineError, match=r"nothing in .*bf16 can be prepared"):
        build_ready_bundle(in_bf16, tmp_path / "none")
    with pytest.raises(JukeboxError, match="not empty"):
        build_ready_bundle(exported, exported.folder)
    assert {path.name for path in tmp_path.iterdir()} == {"floats", "bf16"}


def test_a_prefill_is_opened_when_it_is_needed(ready, monkeypatch):
    from jukebox_deploy.engines.onnxruntime import engine as onnxruntime

    opened = []

    def open_and_tell(graph, *arguments):
        opened.append(graph.spec.kind)
        return open_session(graph, *arguments)

    monkeypatch.setattr(onnxruntime, "open_session", open_and_tell)
    session = OnnxRuntimeEngine(preset("tiny"), ready.graphs, ready.paths).prior_session(0, 1)
    session.step(1)
    assert opened == [GraphKind.STEP]
    session.prefill(range(1))
    session.prefill(range(1))
    assert opened == [GraphKind.STEP, GraphKind.PREFILL]


def test_a_sealed_graph_that_is_none_is_named(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "sealed")
    (folder / "step_0.onnx").write_bytes(b"not a graph\xff" * 20)
    write_manifest(folder, exported.manifest)
    with pytest.raises(EngineError, match=r"step_0\.onnx cannot be read as an ONNX graph .* Copy the folder again"):
        build_ready_bundle(open_bundle(folder), tmp_path / "ready")
    assert not (tmp_path / "ready").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("FAIL : Failed to write external initializers to file", "ready: could not be written: the disk is full"),
        ("FAIL : no kernel", r"ONNX Runtime cannot make \w+_0\.onnx ready: FAIL : no kernel\."),
    ],
)
def test_what_stops_onnx_runtime_is_said(exported, tmp_path, monkeypatch, words, said):
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError(f"{words}\nstd::a::very::long::signature()")

    monkeypatch.setattr(import_onnxruntime(), "InferenceSession", fail)
    with pytest.raises(JukeboxError, match=said) as raised:
        build_ready_bundle(exported, tmp_path / "ready")
    assert "std::" not in str(raised.value)
    assert not list(tmp_path.iterdir())
