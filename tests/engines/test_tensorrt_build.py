"""TensorRT-RTX parses and builds hand-made graphs here, without a GPU; what it refuses becomes a sentence."""

from __future__ import annotations

import errno
import importlib
import io
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, LinearWeights, Precision, Role, TensorSpec
from jukebox_deploy.engines import tensorrt_build
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt_build import BuildOptions, build_bundle, build_engine
from jukebox_deploy.engines.tensorrt_flavour import (
    BuildEvents,
    load_flavour,
    require_precision,
    set_compute_capabilities,
    stream_writer,
)
from jukebox_deploy.errors import EngineError, JukeboxError
from tests.engines.handmade_graphs import cache_model, cache_spec, decode_spec, make_model, save_bundle

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


def built(folder: Path, precision: Precision, *capabilities: str) -> tensorrt_build.BuildSummary:
    spec = cache_spec(precision.dtype)
    onnx.save(cache_model(spec), folder / "step_0.onnx")
    options = BuildOptions(compute_capabilities=capabilities)
    return build_engine(folder / "step_0.onnx", spec, folder / "step_0.engine", options)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_cache_graph_builds(rtx: Any, tmp_path: Path, precision: Precision, capability: str) -> None:
    summary = built(tmp_path, precision, capability)
    assert summary.caches_in_place == 1
    assert summary.engine_bytes == (tmp_path / "step_0.engine").stat().st_size > 0
    assert summary.activation_bytes
    assert summary.warnings == ()


def test_fp32_is_fp32_and_what_has_states_can_be_recorded(rtx: Any) -> None:
    builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))
    for spec in (cache_spec("float32"), decode_spec()):
        builder_config = tensorrt_build._configure(rtx, builder, spec, BuildOptions())
        assert not builder_config.get_flag(rtx.BuilderFlag.TF32)
        assert builder_config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION) is bool(spec.states)


def test_turing_builds_in_fp16(rtx: Any, tmp_path: Path) -> None:
    assert built(tmp_path, Precision.FP16, "7.5").engine_bytes


def test_one_engine_for_many_gpus(rtx: Any, tmp_path: Path) -> None:
    assert built(tmp_path, Precision.FP16, *CAPABILITIES, *CAPABILITIES).engine_bytes


def test_the_flavour_chooses_when_nothing_is_said(rtx: Any, tmp_path: Path) -> None:
    assert built(tmp_path, Precision.BF16).engine_bytes


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_what_turing_lacks_is_refused_with_a_hint(rtx: Any, tmp_path: Path, precision: Precision) -> None:
    with pytest.raises(EngineError, match=r"step_0: tensorrt-rtx cannot build the engine: .*(7\.5|--precision fp16)"):
        built(tmp_path, precision, "7.5")
    assert not (tmp_path / "step_0.engine").exists()


def test_a_bundle_becomes_a_bundle(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    seen: list[tuple[str, str, int, int]] = []
    options = BuildOptions(compute_capabilities=("8.6", "12.0"))
    bundle, summaries = build_bundle(source, tmp_path / "engines", options, progress=lambda *event: seen.append(event))
    manifest = open_bundle(tmp_path / "engines").manifest
    assert manifest == bundle.manifest
    assert manifest.target is Target.TENSORRT_RTX
    assert manifest.tools["tensorrt-rtx"] == rtx.__version__
    assert (manifest.config, manifest.checkpoint) == (source.manifest.config, source.manifest.checkpoint)
    assert [summary.graph for summary in summaries] == ["step_0", "vqvae_decode_0"] == list(manifest.graphs)
    step = manifest.graph(GraphKind.STEP, 0)
    assert step.spec == cache_spec()
    assert step.compute_capabilities == ("8.6", "12.0")
    assert step.options["onnx_sha256"] == source.manifest.files["step_0.onnx"].sha256
    assert step.options["activation_bytes"] == summaries[0].activation_bytes
    assert {event[0] for event in seen} == {"step_0", "vqvae_decode_0"}
    assert all(1 <= done <= steps for _, _, done, steps in seen)


def test_some_graphs_only(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    bundle, _ = build_bundle(source, tmp_path / "engines", BuildOptions(), ["vqvae_decode_0"])
    assert list(bundle.graphs) == ["vqvae_decode_0"]
    with pytest.raises(EngineError, match=r"has no graphs \['step_7'\]; it has \['step_0', 'vqvae_decode_0'\]"):
        build_bundle(source, tmp_path / "other", BuildOptions(), ["step_7"])


def test_engines_are_not_built_from_engines(rtx: Any, tmp_path: Path) -> None:
    bundle, _ = build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", BuildOptions())
    with pytest.raises(EngineError, match="holds tensorrt-rtx engines; build from an exported ONNX bundle"):
        build_bundle(bundle, tmp_path / "again", BuildOptions())


def test_a_full_folder_is_left_alone(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    with pytest.raises(JukeboxError, match="already there and not empty"):
        build_bundle(source, tmp_path / "onnx", BuildOptions())
    assert open_bundle(tmp_path / "onnx").manifest == source.manifest


def test_a_bundle_of_a_precision_that_a_gpu_lacks_is_refused_at_once(tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx", Precision.BF16)
    with pytest.raises(EngineError, match=r"compute capability 7\.5 cannot run bf16 engines"):
        build_bundle(source, tmp_path / "engines", BuildOptions(compute_capabilities=("8.9", "7.5")))


def test_a_bundle_of_int4_weights_is_refused_at_once_for_turing(tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    source = replace(source, manifest=replace(source.manifest, linear_weights=LinearWeights.INT4))
    with pytest.raises(EngineError, match=r"compute capability 7\.5 cannot run int4 weights: leave 7\.5 out"):
        build_bundle(source, tmp_path / "engines", BuildOptions(compute_capabilities=("8.9", "7.5")))
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize(("weights", "capability"), [(LinearWeights.INT4, "8.0"), (LinearWeights.INT8, "7.5")])
def test_integer_weights_that_the_builder_takes_pass(weights: LinearWeights, capability: str) -> None:
    require_precision(Precision.FP16, [capability], weights)


def test_missing_weights_fail_in_the_parser_and_leave_nothing(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    (tmp_path / "onnx" / "step_0.weights").unlink()
    with pytest.raises(EngineError, match=r"step_0: tensorrt-rtx cannot parse the graph: .*step_0\.weights"):
        build_bundle(source, tmp_path / "engines", BuildOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_graph_that_breaks_the_rules_never_reaches_the_parser(tmp_path: Path) -> None:
    spec = cache_spec()
    model = cache_model(spec)
    model.graph.node[1].input[0] = "past_key_0"
    onnx.save(model, tmp_path / "step_0.onnx")
    with pytest.raises(EngineError, match="only its update may read it"):
        build_engine(tmp_path / "step_0.onnx", spec, tmp_path / "step_0.engine", BuildOptions())


def test_an_operator_that_the_parser_lacks(rtx: Any, tmp_path: Path) -> None:
    tensors = (
        TensorSpec("logits", "float32", ("B", 4), Role.INPUT),
        TensorSpec("drawn", "int32", ("B", 1), Role.OUTPUT),
    )
    spec = GraphSpec(GraphKind.CONDITION, 0, tensors, (DimensionRange("B", 1, 1, 2),))
    model = make_model(spec, [helper.make_node("Multinomial", ["logits"], ["drawn"], sample_size=1)], {})
    onnx.save(model, tmp_path / "condition_0.onnx")
    with pytest.raises(EngineError, match=r"condition_0: tensorrt-rtx cannot parse the graph: .*Multinomial"):
        build_engine(tmp_path / "condition_0.onnx", spec, tmp_path / "condition_0.engine", BuildOptions())


def raise_interrupt(*event: object) -> None:
    raise KeyboardInterrupt


def send_interrupt(*event: object) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("interrupt", [raise_interrupt, send_interrupt])
def test_an_interruption_ends_the_build_and_leaves_nothing(rtx: Any, tmp_path: Path, interrupt: Any) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", BuildOptions(), progress=interrupt)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_a_full_disk_is_noticed_although_the_library_swallows_it(rtx: Any, tmp_path: Path, monkeypatch: Any) -> None:
    class FullDisk(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        tensorrt_build, "stream_writer", lambda target, events, file: stream_writer(target, events, FullDisk())
    )
    with pytest.raises(JukeboxError, match="the disk is full"):
        built(tmp_path, Precision.FP16)
    assert not (tmp_path / "step_0.engine").exists()


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Target.TENSORRT_RTX, r"pip install 'jukebox-deploy\[tensorrt-rtx\]'"),
        (Target.TENSORRT, r"pip install --extra-index-url https://pypi.nvidia.com 'jukebox-deploy\[tensorrt\]'"),
    ],
)
def test_a_missing_flavour_says_how_to_install_it(monkeypatch: Any, target: Target, command: str) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(EngineError, match=f"{target} is not installed .*{command}"):
        load_flavour(target)


def test_onnx_runtime_needs_no_builder() -> None:
    with pytest.raises(EngineError, match="onnxruntime needs no builder"):
        load_flavour(Target.ONNXRUNTIME)


def test_unknown_gpus_are_refused_with_the_known_ones(rtx: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot build for compute capability 9\.9; it knows \['7\.5', '8\.0'"):
        built(tmp_path, Precision.FP16, "8.6", "9.9")


def test_a_flavour_that_cannot_build_for_other_gpus() -> None:
    with pytest.raises(EngineError, match="tensorrt builds for the GPU of this machine only"):
        set_compute_capabilities(None, object(), ["8.6"], Target.TENSORRT)


@pytest.mark.parametrize("capability", ["", "8", "sm86", "8.6 ", "8.6.1"])
def test_odd_compute_capabilities(capability: str) -> None:
    with pytest.raises(EngineError, match=r"is no compute capability; write them like 8\.6"):
        require_precision(Precision.FP16, [capability])


def test_profiles_come_from_the_table() -> None:
    class Recorder:
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {}  # noqa: RUF012  # one test's worth

        def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
            self.shapes[name] = shapes

    spec = decode_spec()
    fixed = TensorSpec("scale", "float32", (3,), Role.INPUT)
    half = TensorSpec("halves", "float32", ("B", "2*T"), Role.INPUT)
    recorder = Recorder()
    tensorrt_build._set_shapes(recorder, replace(spec, tensors=(*spec.tensors, fixed, half)))
    assert recorder.shapes == {
        "codes": ((1, 1), (4, 64), (16, 256)),
        "halves": ((1, 2), (4, 128), (16, 512)),
    }


def test_a_network_without_the_declared_updates_is_refused() -> None:
    with pytest.raises(EngineError, match="sees 0 caches updated in place, the table has 1"):
        tensorrt_build._require_cache_updates(cache_spec(), 0, Target.TENSORRT_RTX)


def test_weights_of_a_large_graph_go_to_the_file_in_pieces(rtx: Any, tmp_path: Path) -> None:
    spec = GraphSpec(
        GraphKind.CONDITION,
        0,
        (TensorSpec("x", "float16", ("B", 6144), Role.INPUT), TensorSpec("y", "float16", ("B", 6144), Role.OUTPUT)),
        (DimensionRange("B", 1, 1, 2),),
    )
    weight = (np.arange(6144 * 6144, dtype=np.int32) % 251).astype(np.float16).reshape(6144, 6144)  # 75 MB
    onnx.save(make_model(spec, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}), tmp_path / "x.onnx")
    summary = build_engine(tmp_path / "x.onnx", spec, tmp_path / "x.engine", BuildOptions())
    assert summary.engine_bytes > weight.nbytes


def test_events_read_numbers_from_messages() -> None:
    events = BuildEvents([("INFO", "Total Activation Memory: 12 bytes"), ("INFO", "Total Activation Memory: 34 bytes")])
    assert events.number("Total Activation Memory:") == 34
    assert events.number("Total Weights Memory:") is None
