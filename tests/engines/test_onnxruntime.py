"""What only the ONNX Runtime backend promises: caches in place, one upload for many writes, clear refusals."""

from __future__ import annotations

import builtins
import importlib.metadata
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jukebox_deploy.contract import GraphKind, Role, TensorSpec
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.onnxruntime import sessions
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.memory import DeviceMemory, HostBuffer
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
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


def install(monkeypatch, **folders):
    """Pretend that wheels are installed, each in a folder."""

    def distribution(name):
        if (folder := folders.get(name.replace("-", "_"))) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda path: Path(folder) / path)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def test_both_wheels_in_one_folder_are_refused(monkeypatch):
    install(monkeypatch, onnxruntime="/site", onnxruntime_gpu="/site")
    with pytest.raises(EngineError, match=r"both onnxruntime and onnxruntime-gpu.*pip uninstall"):
        import_onnxruntime()


@pytest.mark.parametrize(
    "folders",
    [{"onnxruntime_gpu": "/site"}, {"onnxruntime": "/site", "onnxruntime_gpu": "/home/site"}],
    ids=["one wheel", "two folders"],
)
def test_wheels_that_do_not_overwrite_each_other_are_fine(monkeypatch, folders):
    install(monkeypatch, **folders)
    import_onnxruntime()


def test_a_missing_runtime_is_a_sentence(monkeypatch):
    real_import = builtins.__import__

    def without_runtime(name, *arguments, **keywords):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        return real_import(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr(builtins, "__import__", without_runtime)
    with pytest.raises(EngineError, match=r"not installed.*pip install onnxruntime "):
        import_onnxruntime()


def test_an_unknown_provider_is_refused():
    with pytest.raises(EngineError, match="unknown provider 'cudaa'; choose cpu, cuda, tensorrt or tensorrt-rtx"):
        OnnxRuntimeOptions("cudaa")


@pytest.mark.parametrize("provider", ["cpu", "tensorrt", "tensorrt-rtx"])
def test_steps_are_recorded_with_cuda_alone(provider):
    with pytest.raises(EngineError, match=f"with the provider cuda, not with {provider}"):
        OnnxRuntimeOptions(provider, cuda_graph=True)


@pytest.mark.parametrize(
    ("provider", "said"),
    [
        ("cuda", r"no CUDAExecutionProvider.*pip install 'onnxruntime-gpu"),
        ("tensorrt", r"no TensorrtExecutionProvider.*jukebox-deploy build"),
        ("tensorrt-rtx", r"no NvTensorRTRTXExecutionProvider.*jukebox-deploy build"),
    ],
)
def test_a_runtime_without_a_provider_says_what_to_do(bundle, provider, said):
    import onnxruntime

    if sessions.GPU_PROVIDERS[provider] in onnxruntime.get_available_providers():
        pytest.skip(f"this runtime has {provider}")
    engine = handmade_prior.onnx_engine(bundle.folder)
    engine._options = OnnxRuntimeOptions(provider)
    with pytest.raises(EngineError, match=said):
        engine.runner(GraphKind.VQVAE_DECODE, 0)


@dataclass
class GpuRuntime:
    """Stands for the `onnxruntime` module of a machine with a GPU."""

    starts: tuple[str, ...]  # what sessions end up with
    told: list[tuple[list, object]] = field(default_factory=list)  # providers and options of each session
    loaded: list[str | None] = field(default_factory=list)  # folders of CUDA's libraries; `None`: the usual ones

    def __getattr__(self, name):
        import onnxruntime

        return getattr(onnxruntime, name)

    def get_available_providers(self):
        return [*sessions.GPU_PROVIDERS.values(), "CPUExecutionProvider"]

    def preload_dlls(self, directory=None):
        self.loaded.append(directory)

    def InferenceSession(self, model, session_options, providers, enable_fallback):  # noqa: N802  # the runtime's name
        assert not enable_fallback
        self.told.append((providers, session_options))
        return type("Session", (), {"get_providers": lambda session: list(self.starts)})()


def opened_on_gpu(monkeypatch, bundle, graph, options, starts):
    runtime = GpuRuntime(starts)
    monkeypatch.setattr(sessions, "import_onnxruntime", lambda: runtime)
    sessions.open_session(sessions.GraphFile.read(bundle.graphs[graph], bundle.folder / f"{graph}.onnx"), options, 1)
    ((providers, _),) = runtime.told
    return providers


@pytest.mark.parametrize(("graph", "recorded"), [("step_0", "1"), ("prefill_0", "0"), ("vqvae_decode_0", "0")])
def test_only_steps_are_recorded_for_their_shapes_never_change(monkeypatch, bundle, graph, recorded):
    options = OnnxRuntimeOptions("cuda", cuda_graph=True)
    ((name, chosen),) = opened_on_gpu(monkeypatch, bundle, graph, options, ("CUDAExecutionProvider",))
    assert name == "CUDAExecutionProvider"
    assert chosen["enable_cuda_graph"] == recorded
    assert chosen["use_tf32"] == "0"


@pytest.mark.parametrize("provider", ["tensorrt", "tensorrt-rtx"])
def test_what_tensorrt_does_not_take_is_left_to_cuda(monkeypatch, bundle, provider):
    first = sessions.GPU_PROVIDERS[provider]
    told = opened_on_gpu(monkeypatch, bundle, "step_0", OnnxRuntimeOptions(provider), (first, "CUDAExecutionProvider"))
    assert [name for name, _ in told] == [first, "CUDAExecutionProvider"]


@pytest.mark.parametrize(("set_to", "expected"), [(None, "0"), ("1", "1")])
@pytest.mark.parametrize("provider", sessions.GPU_PROVIDERS)
def test_products_are_not_rounded_by_libraries_that_are_loaded_afterwards(monkeypatch, provider, set_to, expected):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", set_to or "")
    if set_to is None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    seen = []
    monkeypatch.setattr(sessions, "_load_libraries", lambda: seen.append(os.environ.get("NVIDIA_TF32_OVERRIDE")))
    sessions.providers(GpuRuntime(()), OnnxRuntimeOptions(provider))
    assert seen == [expected]


def test_libraries_are_found_in_another_folder_of_packages(monkeypatch, tmp_path):
    """ONNX Runtime looks for those of NVIDIA's packages only beside itself."""
    elsewhere = [tmp_path / "nvidia" / name / "lib" for name in ("cu13", "cudnn")]
    for folder in elsewhere:
        folder.mkdir(parents=True)
    beside = Path(import_onnxruntime().__file__).parents[1] / "nvidia"
    places = SimpleNamespace(submodule_search_locations=[str(beside), str(tmp_path / "nvidia")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: places)
    runtime = GpuRuntime(())
    monkeypatch.setattr(sessions, "import_onnxruntime", lambda: runtime)
    sessions._load_libraries.__wrapped__()
    assert runtime.loaded == [*map(str, elsewhere), None]


def test_a_provider_that_does_not_start_is_no_silent_cpu(monkeypatch, bundle):
    with pytest.raises(NoDeviceError, match=r"does not start on this machine \(the session has CPUExecutionProvider\)"):
        opened_on_gpu(monkeypatch, bundle, "step_0", OnnxRuntimeOptions("cuda"), ("CPUExecutionProvider",))


def test_a_provider_that_does_not_start_is_told_of_before_anything_is_written(monkeypatch, bundle):
    engine = handmade_prior.onnx_engine(bundle.folder)
    monkeypatch.setattr(sessions, "import_onnxruntime", lambda: GpuRuntime(("CPUExecutionProvider",)))
    with pytest.raises(NoDeviceError, match="does not start on this machine"):
        OnnxRuntimeEngine(engine.config, engine.graphs, engine._files, OnnxRuntimeOptions("cuda"))
    monkeypatch.setattr(sessions, "import_onnxruntime", lambda: GpuRuntime(("CUDAExecutionProvider",)))
    OnnxRuntimeEngine(engine.config, engine.graphs, engine._files, OnnxRuntimeOptions("cuda"))


def test_a_recording_is_named_in_the_options_of_a_run():
    assert sessions.options_of_recording(2).get_run_config_entry("gpu_graph_id") == "2"


@pytest.mark.parametrize(
    ("options", "records"),
    [
        (OnnxRuntimeOptions("cuda"), True),
        (OnnxRuntimeOptions("cuda", cuda_graph=True), True),
        (OnnxRuntimeOptions("cuda", cuda_graph=False), False),
        (OnnxRuntimeOptions("tensorrt"), False),
        (OnnxRuntimeOptions(), False),
    ],
)
def test_steps_are_recorded_on_cuda_unless_told_otherwise(options, records):
    assert options.records is records


def test_a_file_that_is_no_graph_is_named(bundle, tmp_path):
    engine = handmade_prior.onnx_engine(bundle.folder)
    model = handmade_prior.models()["vqvae_decode_0"]
    model.graph.node[0].op_type = "NoSuchOperator"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.SerializeToString())
    engine._files = {"vqvae_decode_0": broken}
    with pytest.raises(EngineError, match=r"cannot open broken\.onnx"):
        engine.runner(GraphKind.VQVAE_DECODE, 0)


def test_a_file_that_was_removed_or_cut_meanwhile_is_named(bundle, tmp_path):
    engine = handmade_prior.onnx_engine(bundle.folder)
    gone = tmp_path / "gone.onnx"
    engine._files = {"vqvae_decode_0": gone}
    with pytest.raises(EngineError, match=r"gone\.onnx is missing\. Copy the folder again"):
        engine.runner(GraphKind.VQVAE_DECODE, 0)
    gone.write_bytes((bundle.folder / "vqvae_decode_0.onnx").read_bytes()[:-7])
    with pytest.raises(EngineError, match=r"gone\.onnx cannot be read as an ONNX graph .* Copy the folder again"):
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
