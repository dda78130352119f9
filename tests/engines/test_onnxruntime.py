"""What only the ONNX Runtime backend promises: caches in place, one upload for many writes, clear refusals."""

from __future__ import annotations

import builtins
import importlib.metadata
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from jukebox_deploy.contract import GraphKind, Role, TensorSpec
from jukebox_deploy.engines import onnxruntime_sessions as sessions
from jukebox_deploy.engines.onnxruntime_memory import DeviceMemory, HostBuffer
from jukebox_deploy.engines.onnxruntime_sessions import OnnxRuntimeOptions, import_onnxruntime
from jukebox_deploy.engines.threads import SMALL_WEIGHTS, worthwhile_threads
from jukebox_deploy.errors import EngineError
from tests.engines import handmade_prior, in_place_proof
from tests.source_tree import REPOSITORY

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return handmade_prior.save(tmp_path_factory.mktemp("handmade") / "bundle")


def prove(folder, level, mode):
    command = [sys.executable, "-m", in_place_proof.__name__, str(folder), str(level), mode]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


needs_mprotect = pytest.mark.skipif(sys.platform != "linux", reason="protects memory as Linux does")


@needs_mprotect
class TestCachesAreUpdatedInPlace:
    def test_a_step_writes_no_page_but_those_of_the_new_keys(self, bundle):
        done = prove(bundle.folder, 0, "in place")
        assert (done.returncode, done.stdout) == (0, "1 caches, 28 pages left alone\n"), done.stderr

    @pytest.mark.parametrize("mode", ["all pages", "copy"])
    def test_any_other_write_would_have_been_caught(self, bundle, mode):
        done = prove(bundle.folder, 0, mode)
        assert done.returncode == -signal.SIGSEGV, done.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize(("level", "caches"), [(0, 6), (2, 32)])
    def test_an_exported_step_writes_no_page_but_those_of_the_new_keys(self, tiny_engine_bundle, level, caches):
        done = prove(tiny_engine_bundle.folder, level, "in place")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{caches} caches, ")
        for mode in ("all pages", "copy"):
            assert prove(tiny_engine_bundle.folder, level, mode).returncode == -signal.SIGSEGV


def test_tensors_do_not_share_pages():
    spec = TensorSpec("codes", "int32", ("B", 3), Role.STATE)
    buffers = [HostBuffer(spec, 2) for _ in range(20)]
    pages = [buffer.address // 4096 for buffer in buffers]
    assert all(buffer.address % 4096 == 0 for buffer in buffers)
    assert len(set(pages)) == len(pages)


@dataclass
class CountingRuntime:
    """Stands for the `onnxruntime` module; counts the copies to the device."""

    uploads: list[int] = field(default_factory=list)

    @property
    def OrtValue(self):  # noqa: N802  # the runtime's name
        return self

    def ortvalue_from_numpy(self, array, device, number):
        return CountedValue(self, array)


@dataclass
class CountedValue:
    runtime: CountingRuntime
    array: np.ndarray
    downloads: int = 0

    def update_inplace(self, array):
        self.runtime.uploads.append(array.nbytes)
        self.array = array.copy()

    def numpy(self):
        self.downloads += 1
        return self.array


def test_many_writes_reach_a_device_in_one_copy():
    runtime = CountingRuntime()
    memory = DeviceMemory(runtime, ("cuda", 0))
    buffer = memory.allocate(TensorSpec("conditioning", "float32", ("B", 5), Role.INPUT), 3)
    for slot in (0, 2, 0):
        buffer.write(slot, np.full(5, slot + 1, np.float32))
    assert runtime.uploads == []
    memory.synchronize()
    memory.synchronize()
    assert runtime.uploads == [60]
    np.testing.assert_array_equal(buffer._value.array[:, 0], [1, 0, 3])
    assert buffer._value.downloads == 0  # no graph changes an input, so its content is known here


def test_what_a_run_left_on_a_device_is_kept_when_another_slot_is_written():
    memory = DeviceMemory(CountingRuntime(), ("cuda", 0))
    buffer = memory.allocate(TensorSpec("position", "int64", ("B",), Role.STATE), 3)
    buffer._value.array = np.array([7, 8, 9])  # by a step
    buffer.write(1, np.asarray(0))
    memory.synchronize()
    np.testing.assert_array_equal([buffer.read(slot) for slot in range(3)], [7, 0, 9])


def test_both_wheels_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(EngineError, match=r"both onnxruntime and onnxruntime-gpu.*pip uninstall"):
        import_onnxruntime()


def test_one_wheel_is_enough(monkeypatch):
    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    import_onnxruntime()


def test_a_missing_runtime_is_a_sentence(monkeypatch):
    real_import = builtins.__import__

    def without_runtime(name, *arguments, **keywords):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real_import(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(builtins, "__import__", without_runtime)
    with pytest.raises(EngineError, match=r"not installed.*jukebox-deploy\[cpu\]"):
        import_onnxruntime()


def test_an_unknown_provider_is_refused():
    with pytest.raises(EngineError, match="unknown provider 'cudaa'; choose cpu or cuda"):
        OnnxRuntimeOptions("cudaa")


def test_a_runtime_without_cuda_says_what_to_install(bundle):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this runtime has CUDA")
    engine = handmade_prior.onnx_engine(bundle.folder)
    engine._options = OnnxRuntimeOptions("cuda")
    with pytest.raises(EngineError, match=r"no CUDA provider.*jukebox-deploy\[cuda\]"):
        engine.runner(GraphKind.VQVAE_DECODE, 0)


def test_a_file_that_is_no_graph_is_named(bundle, tmp_path):
    engine = handmade_prior.onnx_engine(bundle.folder)
    model = handmade_prior.models()["vqvae_decode_0"]
    model.graph.node[0].op_type = "NoSuchOperator"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.SerializeToString())
    engine._files = {"vqvae_decode_0": broken}
    with pytest.raises(EngineError, match=r"cannot open broken\.onnx"):
        engine.runner(GraphKind.VQVAE_DECODE, 0)


def test_a_prior_of_small_weights_runs_on_one_thread(monkeypatch):
    monkeypatch.setattr("jukebox_deploy.engines.threads.usable_cores", lambda: 6)
    step = handmade_prior.tables()["step_0"]
    assert [worthwhile_threads(step, size) for size in (0, SMALL_WEIGHTS - 1, SMALL_WEIGHTS)] == [1, 1, 6]


@pytest.mark.parametrize(("threads", "expected"), [(None, (1, 4)), (1, (1, 1)), (3, (1, 3))])
def test_sound_is_decoded_by_calls_of_one_thread_each(monkeypatch, bundle, threads, expected):
    monkeypatch.setattr("jukebox_deploy.engines.threads.usable_cores", lambda: 6)
    graph = sessions.GraphFile.read(bundle.graphs["vqvae_decode_0"], bundle.folder / "vqvae_decode_0.onnx")
    assert graph.threads(OnnxRuntimeOptions(threads=threads)) == expected


def test_the_weights_of_a_graph_are_counted(tmp_path):
    import onnx

    model = handmade_prior.models()["step_0"]
    path = tmp_path / "step.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="step.weights")
    read = sessions.GraphFile.read(handmade_prior.tables()["step_0"], path)
    assert read.weight_bytes == handmade_prior.WEIGHT.nbytes
