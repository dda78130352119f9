"""What ONNX Runtime does on a GPU, as far as host memory shows it: copies through its own values, and recorded steps.

On a processor it takes no notice of a recording's number, so a replay is a run; which number each run has is seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Role, TensorSpec
from jukebox_deploy.engines.device import OutOfDeviceMemoryError
from jukebox_deploy.engines.onnxruntime import engine as backend
from jukebox_deploy.engines.onnxruntime import sessions
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine, OnnxRuntimeRunner, OnnxRuntimeSession
from jukebox_deploy.engines.onnxruntime.integer_blocks import gpu_block_size
from jukebox_deploy.engines.onnxruntime.memory import DeviceBuffer, DeviceMemory, bound_dtype, failure
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile, OnnxRuntimeOptions
from jukebox_deploy.errors import EngineError
from tests.engines import handmade_prior

onnxruntime = pytest.importorskip("onnxruntime")
HERE = ("cpu", 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade_prior.save(tmp_path_factory.mktemp("handmade") / "onnx").folder


@dataclass
class Recording:
    """An engine that believes it is on a GPU."""

    engine: OnnxRuntimeEngine
    numbers: list[int] = field(default_factory=list)  # of the recordings, run by run
    recordings_do: Callable[[], None] = lambda: None  # before they run


@pytest.fixture
def recording(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    found = Recording(handmade_prior.onnx_engine(folder))
    monkeypatch.setattr(OnnxRuntimeOptions, "records", property(lambda options: options.cuda_graph is not False))
    monkeypatch.setattr(found.engine, "_memory", lambda: DeviceMemory(onnxruntime, HERE))
    run = backend._run

    def noted(graph: Any, bindings: Any, run_options: Any = None) -> None:
        if run_options is not None:
            found.numbers.append(int(run_options.get_run_config_entry("gpu_graph_id")))
            if found.numbers[-1] > 0:
                found.recordings_do()
        run(graph, bindings, run_options)

    monkeypatch.setattr(backend, "_run", noted)
    return found


def _fill(session: OnnxRuntimeSession) -> None:
    rng = np.random.default_rng(5)
    for slot in range(session.slots):
        session.write("query", slot, rng.standard_normal((handmade_prior.HEADS, 1, handmade_prior.WIDTH), np.float32))
        session.write("position", slot, np.asarray(slot))


def _state(session: OnnxRuntimeSession) -> list[np.ndarray]:
    return [session.read(t.name, slot) for t in session.spec.tensors for slot in range(session.slots)]


def test_recorded_steps_are_those_of_plain_ones(recording: Recording, folder: Path) -> None:
    states = []
    for engine in (recording.engine, handmade_prior.onnx_engine(folder)):
        engine._options = OnnxRuntimeOptions(cuda_graph=None if engine is recording.engine else False)
        session = engine.prior_session(0, 3)
        _fill(session)
        session.prefill(range(1, 3))
        session.step(6)
        states.append(_state(session))
    for recorded, plain in zip(*states, strict=True):
        np.testing.assert_array_equal(recorded, plain)
    # Plainly, recorded, replayed, in either turn; the first turn once more beside the second; then one run a step.
    assert recording.numbers == [-1, 1, 1, -1, 2, 2, -1, 1, 2, 1, 2]


def test_a_recording_that_does_something_else_is_refused(recording: Recording) -> None:
    session = recording.engine.prior_session(0, 1)
    _fill(session)
    query = session._buffers["query"][0]
    assert isinstance(query, DeviceBuffer)
    other = np.full(query.whole().shape, 3.0, np.float32)
    recording.recordings_do = lambda: query.replace(other)
    with pytest.raises(EngineError, match="gives other values of result than the step itself"):
        session.step(1)


def _refuse_recordings(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    opened = sessions.open_session

    def refuse(graph: GraphFile, options: OnnxRuntimeOptions, slots: int | None = None) -> Any:
        if options.records and graph.spec.kind is GraphKind.STEP:
            raise failure(f"ONNX Runtime cannot open {graph.path.name}", RuntimeError(words))
        return opened(graph, options, slots)

    monkeypatch.setattr(backend, "open_session", refuse)


def test_a_step_with_nodes_elsewhere_runs_plainly(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_recordings(monkeypatch, "This session cannot use the graph capture feature.")
    with pytest.warns(RuntimeWarning, match=r"cannot use the graph capture feature\. Steps run without CUDA graphs"):
        session = recording.engine.prior_session(0, 1)
    _fill(session)
    session.step(2)
    assert recording.numbers == []


def test_unless_it_must_be_recorded(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_recordings(monkeypatch, "This session cannot use the graph capture feature.")
    monkeypatch.setattr(OnnxRuntimeOptions, "__post_init__", lambda options: None)
    recording.engine._options = OnnxRuntimeOptions(cuda_graph=True)
    with pytest.raises(EngineError, match="cannot use the graph capture feature"):
        recording.engine.prior_session(0, 1)


def test_memory_that_ran_out_is_no_reason_to_try_again(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_recordings(monkeypatch, "Failed to allocate memory for requested buffer of size 7")
    with warnings.catch_warnings(), pytest.raises(OutOfDeviceMemoryError, match=r"size 7\. Ask for fewer slots"):
        warnings.simplefilter("error")
        recording.engine.prior_session(0, 1)


@pytest.mark.parametrize(
    ("slots", "advice"), [(2, "Ask for fewer slots: at most 2 would fit"), (0, "Not even one slot fits")]
)
def test_memory_that_ran_out_says_what_would_fit(
    recording: Recording, monkeypatch: pytest.MonkeyPatch, slots: int, advice: str
) -> None:
    def fail(*arguments: object) -> None:
        raise failure("BFCArena", RuntimeError("out of memory"))

    free = recording.engine._plan(0).total(slots)
    monkeypatch.setattr(recording.engine, "_session", fail)
    monkeypatch.setattr(recording.engine, "_options", OnnxRuntimeOptions("cuda"))
    monkeypatch.setattr("jukebox_deploy.engines.onnxruntime.engine.free_device_bytes", lambda: free)
    said = rf"BFCArena: out of memory\. Level 0 with 3 slots takes at least \S+ kB, and (0|\S+ kB) were free\. {advice}"
    with pytest.raises(OutOfDeviceMemoryError, match=said) as raised:
        recording.engine.prior_session(0, 3)
    assert str(raised.value).count("fewer slots") == (slots > 0)


ROWS = TensorSpec("rows", "bfloat16", ("B", 4), Role.OUTPUT)


def test_bfloat16_goes_to_a_device_and_comes_back() -> None:
    memory = DeviceMemory(onnxruntime, HERE)
    buffer = memory.allocate(TensorSpec("key_0", "bfloat16", ("B", 2), Role.STATE, in_place=True), 3)
    value = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    buffer.write(1, value)
    memory.synchronize()
    np.testing.assert_array_equal(buffer.read(1), value)
    assert buffer.read(0).dtype == value.dtype
    np.testing.assert_array_equal(buffer.whole()[:, 0].astype(np.float32), [0, 1.5, 0])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "bool"])
def test_other_numbers_go_by_their_own_names(dtype: str) -> None:
    assert bound_dtype(dtype) == np.dtype(dtype)
    assert bound_dtype("bfloat16") == TensorProto.BFLOAT16


def test_a_graph_may_give_bfloat16(tmp_path: Path) -> None:
    """As lyrics do in a bundle of that precision. ONNX Runtime itself returns no such arrays."""
    node = helper.make_node("Cast", ["x"], ["rows"], to=TensorProto.BFLOAT16)
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 4])]
    results = [helper.make_tensor_value_info("rows", TensorProto.BFLOAT16, ["B", 4])]
    graph = helper.make_graph([node], "g", values, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    spec = GraphSpec(
        GraphKind.LYRICS, 0, (TensorSpec("x", "float32", ("B", 4), Role.INPUT), ROWS), (DimensionRange("B", 1, 1, 2),)
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runner = OnnxRuntimeRunner(spec, session, 1)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    rows = runner({"x": x})["rows"]
    assert rows.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(rows.astype(np.float32), x)


def test_a_run_that_fails_is_an_error_of_ours(folder: Path) -> None:
    runner = handmade_prior.onnx_engine(folder).runner(GraphKind.VQVAE_DECODE, 0)

    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDNN failure 4")

    runner._session = type("Session", (), {"io_binding": fail})()
    with pytest.raises(EngineError, match="vqvae_decode_0: ONNX Runtime cannot run it: CUDNN failure 4"):
        runner({"codes": np.zeros((1, 4), np.int64)})


def _integers(scale: TensorProto.DataType, weight: np.ndarray) -> onnx.ModelProto:
    model = onnx.ModelProto()
    weights = numpy_helper.from_array(weight, "w")
    scales = helper.make_tensor("s", scale, [weight.shape[1]], np.ones(weight.shape[1]))
    model.graph.initializer.extend([weights, scales])
    model.graph.node.append(helper.make_node("DequantizeLinear", ["w", "s"], ["m"], axis=1))
    return model


def test_quantised_weights_in_bfloat16_have_no_kernels_on_a_gpu() -> None:
    spec = handmade_prior.tables()["step_0"]
    graph = GraphFile(spec, Path("step_0.onnx"), _integers(TensorProto.BFLOAT16, np.ones((32, 4), np.int8)))
    sessions._require_kernels(graph, OnnxRuntimeOptions())
    with pytest.raises(EngineError, match=r"step_0\.onnx has quantised weights in bf16 .*--precision fp16"):
        sessions._require_kernels(graph, OnnxRuntimeOptions("cuda"))
    fine = GraphFile(spec, Path("step_0.onnx"), _integers(TensorProto.FLOAT16, np.ones((32, 4), np.int8)))
    sessions._require_kernels(fine, OnnxRuntimeOptions("cuda"))


@pytest.mark.parametrize(("provider", "told"), [("cpu", None), ("cuda", "1")])
def test_fp8_is_written_out_once_on_a_gpu(provider: str, told: str | None) -> None:
    model = _integers(TensorProto.FLOAT16, np.ones((32, 4), ml_dtypes.float8_e4m3fn))
    graph = GraphFile(handmade_prior.tables()["step_0"], Path("step_0.onnx"), model)
    entries = sessions._entries_of(graph, OnnxRuntimeOptions(provider), mapped=False)
    assert entries.get("session.disable_quant_qdq") == told
    integers = GraphFile(graph.spec, graph.path, _integers(TensorProto.FLOAT16, np.ones((32, 4), np.int8)))
    assert "session.disable_quant_qdq" not in sessions._entries_of(integers, OnnxRuntimeOptions(provider), mapped=False)


@pytest.mark.parametrize(("inputs", "size"), [((1920, 7680), 64), ((1920, 480), 32), ((4800, 1200), 16), ((7,), 16)])
def test_on_a_gpu_blocks_divide_every_column(inputs: tuple[int, ...], size: int) -> None:
    model = onnx.ModelProto()
    for number, count in enumerate(inputs):
        model.graph.initializer.append(numpy_helper.from_array(np.ones((count, 2), np.int8), f"w{number}"))
        model.graph.node.append(helper.make_node("DequantizeLinear", [f"w{number}", "s"], [f"m{number}"], axis=1))
    assert gpu_block_size(model) == size
