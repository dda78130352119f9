"""TensorRT-RTX parses and builds hand-made graphs here, without a GPU; what it refuses becomes a sentence."""

from __future__ import annotations

import errno
import importlib
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Precision, Role, TensorSpec
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt import build as tensorrt_build
from jukebox_deploy.engines.tensorrt.build import BuildOptions, Feature, build_engine, profile_ranges
from jukebox_deploy.engines.tensorrt.flavour import BuildEvents, load_flavour, stream_writer
from jukebox_deploy.engines.tensorrt.listing import Launches
from jukebox_deploy.errors import EngineError, JukeboxError
from tests.engines.handmade_graphs import cache_model, cache_spec, decode_spec, make_model

CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


def built(folder: Path, precision: Precision, *capabilities: str, **choices: Any) -> tensorrt_build.BuildSummary:
    spec = cache_spec(precision.dtype)
    onnx.save(cache_model(spec), folder / "step_0.onnx")
    options = BuildOptions(compute_capabilities=capabilities, **choices)
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
        network = declared_network(rtx, builder, spec)
        builder_config = tensorrt_build._configure(rtx, builder, network, spec, BuildOptions())
        assert not builder_config.get_flag(rtx.BuilderFlag.TF32)
        assert builder_config.get_flag(rtx.BuilderFlag.REQUIRE_USER_ALLOCATION) is bool(spec.states)


def declared_network(rtx: Any, builder: Any, spec: GraphSpec) -> Any:
    """A network with the inputs of a table and nothing else."""
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    for tensor in spec.inputs:
        dims = [dimension if isinstance(dimension, int) else -1 for dimension in tensor.dims]
        network.add_input(tensor.input_name, rtx.DataType(getattr(rtx, tensor.dtype)), dims)
    return network


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
        (Target.TENSORRT_RTX, "pip install tensorrt-rtx cuda-bindings"),
        (Target.TENSORRT, r"pip install --extra-index-url https://pypi.nvidia.com tensorrt cuda-bindings"),
    ],
)
def test_a_missing_flavour_says_how_to_install_it(monkeypatch: Any, target: Target, command: str) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(EngineError, match=f"{target} is not installed .*{command}"):
        load_flavour(target)


def test_ctrl_c_while_a_flavour_is_loaded_is_no_missing_flavour(monkeypatch: Any) -> None:
    """A module in C++ turns it into an `ImportError`."""

    def interrupted(name: str) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(importlib, "import_module", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_flavour(Target.TENSORRT_RTX)


def test_onnx_runtime_needs_no_builder() -> None:
    with pytest.raises(EngineError, match="onnxruntime needs no builder"):
        load_flavour(Target.ONNXRUNTIME)


def test_profiles_come_from_the_table(rtx: Any) -> None:
    class Recorder:
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {}  # noqa: RUF012  # one test's worth

        def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
            self.shapes[name] = shapes

    spec = decode_spec()
    fixed = TensorSpec("scale", "float32", (3,), Role.INPUT)
    half = TensorSpec("halves", "float32", ("B", "2*T"), Role.INPUT)
    recorder = Recorder()
    spec = replace(spec, tensors=(*spec.tensors, fixed, half))
    tensorrt_build._set_shapes(recorder, declared_network(rtx, rtx.Builder(rtx.Logger(rtx.Logger.ERROR)), spec), spec)
    assert recorder.shapes == {
        "codes": ((1, 1), (4, 64), (16, 256)),
        "halves": ((1, 2), (4, 128), (16, 512)),
    }


def test_a_network_without_the_declared_updates_is_refused() -> None:
    with pytest.raises(EngineError, match="found 0 in-place cache updates, expected 1"):
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
    events = BuildEvents()
    events.messages += [("INFO", f"Total Activation Memory: {number} bytes") for number in (12, 34, 5)]
    assert events.number("Total Activation Memory:") == 34
    assert events.number("Total Weights Memory:") is None


def test_a_profile_for_each_number_of_slots() -> None:
    step, prefill = (replace(cache_spec(), kind=kind) for kind in (GraphKind.STEP, GraphKind.PREFILL))
    ranges = [
        [(r.minimum, r.optimum, r.maximum) for (r,) in profile_ranges(spec, slots)]
        for spec, slots in [(step, (1, 4, 16)), (step, (1,)), (step, (4, 16)), (prefill, (4, 16)), (step, ())]
    ]
    assert ranges == [
        [(1, 1, 2), (2, 4, 4), (5, 16, 16)],
        [(1, 1, 2)],
        [(4, 4, 4), (5, 16, 16)],
        [(1, 4, 4), (5, 16, 16)],
        [(1, 4, 16)],
    ]


def test_graphs_without_slots_to_keep_have_one_profile() -> None:
    assert profile_ranges(decode_spec(), (1, 4)) == [decode_spec().ranges]


def test_profiles_are_built(rtx: Any, tmp_path: Path) -> None:
    assert built(tmp_path, Precision.FP16, slots=(1, 4, 16)).profiles == 3


@pytest.mark.parametrize(("first", "copies"), [((1, 1, 2), 1), ((1, 1, 1), 2)])
def test_profiles_share_their_weights(
    rtx: Any, tmp_path: Path, monkeypatch: Any, first: tuple[int, int, int], copies: int
) -> None:
    """Unless one is fixed at one slot, which `profile_ranges` therefore never gives."""
    spec = products_spec()
    assert profile_ranges(spec, (1, 4))[0] == (DimensionRange("B", 1, 1, 2),)
    monkeypatch.setattr(
        tensorrt_build,
        "profile_ranges",
        lambda spec, slots: [(DimensionRange("B", *first),), (DimensionRange("B", 2, 4, 4),)],
    )
    onnx.save(products_model(spec), tmp_path / "step_0.onnx")
    summary = build_engine(tmp_path / "step_0.onnx", spec, tmp_path / "step_0.engine", BuildOptions(slots=(1, 4)))
    assert copies <= summary.engine_bytes / PRODUCTS_BYTES < copies + 0.5


@pytest.mark.parametrize("stored", [np.int8, ml_dtypes.float8_e4m3fn])
def test_no_step_writes_its_weights_out(rtx: Any, tmp_path: Path, monkeypatch: Any, stored: Any) -> None:
    """What TensorRT-RTX does with one slot alone, and the reason why no profile is fixed at one."""
    spec = replace(products_spec(), ranges=(DimensionRange("B", 1, 1, 1),))
    onnx.save(quantised_products(spec, stored), tmp_path / "step_0.onnx")

    def summary() -> tensorrt_build.BuildSummary:
        return build_engine(tmp_path / "step_0.onnx", spec, tmp_path / "step_0.engine", BuildOptions(slots=(1,)))

    together = summary()
    assert together.warnings == ()
    monkeypatch.setattr(tensorrt_build, "profile_ranges", lambda spec, slots: [spec.ranges])
    (warning,) = (apart := summary()).warnings
    assert warning.startswith("2 kernels of every step only dequantise weights to memory")
    assert warning.endswith(
        "Export for more than one slot (--batch 1,4,16), or with float weights (--weights precision)."
    )
    assert together.kernels is not None
    assert apart.kernels is not None
    assert together.kernels < apart.kernels


@pytest.mark.parametrize(
    ("written", "one_slot", "advice"),
    [
        ("Int8", True, "for more than one slot (--batch 1,4,16), or with float weights"),
        ("FP8", False, "with float weights"),
        ("Int4", False, "with --weights int8, or with float weights"),
        ("Int4", True, "with float weights"),
    ],
)
def test_the_advice_on_written_weights_fits_the_graph(written: str, one_slot: bool, advice: str) -> None:
    """A graph for several slots is not told to be one, and int8 only helps where products read it directly."""
    spec = replace(products_spec(), ranges=(DimensionRange("B", 1, 4, 1 if one_slot else 16),))
    network = SimpleNamespace(num_inputs=2, get_input=lambda index: SimpleNamespace(shape=(-1, 512)[: index + 1]))
    launches = Launches(9, 2, frozenset({written}))
    (warning,) = tensorrt_build._remarks(spec, BuildOptions(), launches, network)
    assert warning.endswith(f"Export {advice} (--weights precision).")
    fixed = SimpleNamespace(num_inputs=2, get_input=lambda index: SimpleNamespace(shape=(1, 512)[: index + 1]))
    assert tensorrt_build._is_for_one_slot(fixed, spec, BuildOptions())


def test_a_graph_may_fix_the_slots_that_its_table_names(rtx: Any, tmp_path: Path) -> None:
    spec = cache_spec()
    model = cache_model(spec)
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = 1
    onnx.save(model, tmp_path / "step_0.onnx")
    fixed = replace(spec, ranges=tuple(DimensionRange(r.symbol, 1, 1, 1) for r in spec.ranges))
    options = BuildOptions(slots=(1,))
    assert build_engine(tmp_path / "step_0.onnx", fixed, tmp_path / "step_0.engine", options).engine_bytes


PRODUCTS_BYTES = 2 * 512 * 1024 * 2


def products_spec() -> GraphSpec:
    """Two matrices, and a state in order to be a stack."""
    tensors = (
        TensorSpec("position", "int64", ("B",), Role.STATE),
        TensorSpec("x", "float16", ("B", 512), Role.INPUT),
        TensorSpec("y", "float16", ("B", 512), Role.OUTPUT),
    )
    return GraphSpec(GraphKind.STEP, 0, tensors, (DimensionRange("B", 1, 4, 4),))


def quantised_products(spec: GraphSpec, stored: Any) -> onnx.ModelProto:
    """The same with weights stored in a byte each, and a scale per column."""
    model = products_model(spec)
    for tensor in [t for t in model.graph.initializer if len(t.dims) == 2]:
        name, width = tensor.name, tensor.dims[1]
        array = (numpy_helper.to_array(tensor) * 16).astype(stored)
        tensor.CopyFrom(numpy_helper.from_array(array, f"{name}_stored"))
        model.graph.initializer.append(numpy_helper.from_array(np.full(width, 1 / 16, np.float16), f"{name}_scale"))
        model.graph.node.insert(
            0, helper.make_node("DequantizeLinear", [f"{name}_stored", f"{name}_scale"], [name], axis=1)
        )
    return model


def products_model(spec: GraphSpec) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    sizes = {"up": (512, 1024), "down": (1024, 512)}
    weights = {name: rng.standard_normal(size, np.float32).astype(np.float16) for name, size in sizes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "up"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["bent"]),
        helper.make_node("Gemm", ["bent", "down"], ["y"]),
        helper.make_node("Add", ["past_position", "one"], ["present_position"]),
    ]
    return make_model(spec, nodes, {**weights, "one": np.array([1], np.int64)})


@pytest.mark.parametrize("feature", [Feature.WEIGHT_STREAMING, Feature.VERSION_COMPATIBLE])
def test_features_that_need_no_gpu(rtx: Any, tmp_path: Path, feature: Feature) -> None:
    summary = built(tmp_path, Precision.FP16, "8.9", features=(feature,))
    assert summary.engine_bytes
    said = [text for text in summary.warnings if "cannot be recorded as a CUDA graph" in text]
    assert len(said) == (feature is Feature.WEIGHT_STREAMING)


@pytest.mark.parametrize("feature", [Feature.REFIT, Feature.STRIPPED])
def test_features_that_need_a_gpu_say_so(rtx: Any, tmp_path: Path, feature: Feature) -> None:
    if _has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="Stripping and refitting of weights needs a GPU on the building machine"):
        built(tmp_path, Precision.FP16, "8.9", features=(feature,))
    assert not (tmp_path / "step_0.engine").exists()


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def test_a_flavour_that_compiles_where_an_engine_runs_has_no_timing_cache(rtx: Any, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="times no kernels while it builds"):
        built(tmp_path, Precision.FP16, "8.9", timing_caches=tmp_path / "timings")
