"""The GPU through CUDA's bindings: every name exists, errors become sentences. It runs in `make gpu-test`."""

from __future__ import annotations

import ast
import builtins
import gc
import inspect
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.engines import cuda_device
from jukebox_deploy.engines.cuda_device import CudaDevice, free_device_bytes, import_cuda
from jukebox_deploy.engines.device import DeviceArena, NoDeviceError, OutOfDeviceMemoryError
from jukebox_deploy.errors import EngineError
from tests.engines.host_device import HostDevice


class Error(IntEnum):
    """CUDA's names and numbers."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorNoDevice = 100  # noqa: N815
    cudaErrorIllegalAddress = 700  # noqa: N815


@dataclass
class FakeCuda:
    """Stands for `cuda.bindings.runtime`: it notes the calls, and fails where it is told to."""

    failing: dict[str, Error] = field(default_factory=dict)
    driver: int = 13000
    devices: int = 1
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    cudaError_t = Error  # noqa: N815  # the names are CUDA's
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = Enum("cudaMemcpyKind", "cudaMemcpyHostToDevice cudaMemcpyDeviceToHost cudaMemcpyDeviceToDevice")  # noqa: N815
    cudaStreamCaptureMode = Enum("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")  # noqa: N815
    cudaDeviceAttr = Enum(  # noqa: N815
        "cudaDeviceAttr", "cudaDevAttrComputeCapabilityMajor cudaDevAttrComputeCapabilityMinor"
    )

    def __getattr__(self, name: str) -> Any:
        results: dict[str, list[Any]] = {
            "cudaGetDeviceCount": [self.devices],
            "cudaDriverGetVersion": [self.driver],
            "cudaRuntimeGetVersion": [13050],
            "cudaStreamCreateWithFlags": [77],
            "cudaMalloc": [0x1000],
            "cudaMemGetInfo": [3, 5],
            "cudaDeviceGetAttribute": [9],
            "cudaGetDeviceProperties": [SimpleNamespace(name=b"a GPU\0\0", totalGlobalMem=1 << 30)],
            "cudaGetErrorString": [b"something is wrong"],
            "cudaStreamEndCapture": ["graph"],
            "cudaGraphInstantiate": ["executable"],
        }

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            return (self.failing.get(name, Error.cudaSuccess), *results.get(name, []))

        return call

    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


def test_every_name_exists_in_the_bindings():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    source = inspect.getsource(cuda_device)
    names = set(re.findall(r"\bcuda[A-Z]\w+(?:\.\w+)?", source))
    spelled = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    functions = {name for name in spelled if isinstance(name, str) and re.fullmatch(r"cuda[A-Z]\w+", name)}
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaStreamBeginCapture"} <= functions
    missing = [name for name in names | functions if not _exists(runtime, name)]
    assert missing == []


def _exists(runtime: Any, name: str) -> bool:
    places = [runtime, runtime.cudaError_t, runtime.cudaDeviceAttr]
    first, _, rest = name.partition(".")
    found = next((getattr(place, first) for place in places if hasattr(place, first)), None)
    return found is not None and (not rest or hasattr(found, rest))


def test_the_real_bindings_find_a_gpu_or_say_that_there_is_none():
    pytest.importorskip("cuda.bindings.runtime")
    with _there_is_a_gpu() or pytest.raises(NoDeviceError, match=r"no NVIDIA driver|driver is too old|no GPU to use"):
        CudaDevice().close()


def _there_is_a_gpu() -> Any:
    from cuda.bindings import runtime

    error, count = runtime.cudaGetDeviceCount()
    return nullcontext() if not error and count else None


@pytest.mark.parametrize(("devices", "free"), [(1, 3), (0, None)])
def test_free_memory_is_asked_for_in_passing(monkeypatch, devices, free):
    cuda = FakeCuda(devices=devices)
    monkeypatch.setattr("jukebox_deploy.engines.cuda_device.import_cuda", lambda: cuda)
    assert free_device_bytes() == free
    assert ("cudaStreamDestroy" in cuda.names()) == bool(devices)


def test_missing_bindings_say_how_to_install_them(monkeypatch):
    real_import = builtins.__import__

    def without_bindings(name, *arguments, **keywords):
        if name.startswith("cuda"):
            raise ModuleNotFoundError("No module named 'cuda'")
        return real_import(name, *arguments, **keywords)

    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_bindings)
    with pytest.raises(NoDeviceError, match="pip install cuda-bindings"):
        import_cuda()


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        (FakeCuda({"cudaGetDeviceCount": Error.cudaErrorInsufficientDriver}, driver=0), "no NVIDIA driver"),
        (
            FakeCuda({"cudaGetDeviceCount": Error.cudaErrorInsufficientDriver}, 12040),
            r"CUDA 12\.4, .* CUDA 13\.5\. Upd",
        ),
        (FakeCuda({"cudaGetDeviceCount": Error.cudaErrorNoDevice}), r"no GPU to use: CUDA sees no GPU.*CUDA_VISIBLE"),
        (FakeCuda(devices=0), "CUDA sees no GPU"),
        (FakeCuda({"cudaGetDeviceCount": Error.cudaErrorIllegalAddress}), r"something is wrong \(cudaErrorIllegalAddr"),
    ],
)
def test_why_there_is_no_gpu(cuda, said):
    with pytest.raises(NoDeviceError, match=said):
        CudaDevice(cuda)


def test_properties():
    device = CudaDevice(FakeCuda())
    assert (device.properties.name, device.properties.compute_capability) == ("a GPU", "9.9")
    assert (device.properties.memory_bytes, device.free_bytes(), device.stream) == (1 << 30, 3, 77)


def test_memory_that_is_used_up_is_an_error_of_its_own():
    cuda = FakeCuda({"cudaMalloc": Error.cudaErrorMemoryAllocation})
    with pytest.raises(OutOfDeviceMemoryError, match="a GPU: the memory of the GPU is used up"):
        CudaDevice(cuda).allocate(100)
    assert "cudaGetLastError" in cuda.names()  # or the next call would report it again


def test_any_other_error_has_its_name():
    device = CudaDevice(FakeCuda({"cudaStreamSynchronize": Error.cudaErrorIllegalAddress}))
    with pytest.raises(EngineError, match=r"cudaStreamSynchronize: something is wrong \(cudaErrorIllegalAddress\)"):
        device.synchronize()


def test_memory_is_zeroed_and_copies_wait():
    cuda = FakeCuda()
    device = CudaDevice(cuda)
    address = device.allocate(64)
    assert ("cudaMemsetAsync", 0x1000, 0, 64, 77) in cuda.calls
    for copy in (device.upload, device.download):
        cuda.calls.clear()
        copy(address, np.zeros(16, np.float32))
        assert cuda.names() == ["cudaMemcpyAsync", "cudaStreamSynchronize"]
        assert cuda.calls[0][3] == 64
    cuda.calls.clear()
    device.copy(1, 2, 3)
    assert cuda.names() == ["cudaMemcpyAsync"]


def test_work_is_recorded_launched_and_let_go():
    cuda = FakeCuda()
    device = CudaDevice(cuda)
    cuda.calls.clear()
    recording = device.record(lambda: device.fill(1, 2, 3))
    recording.replay()
    recording.release()
    recording.release()
    assert cuda.names() == [
        "cudaStreamBeginCapture",
        "cudaMemsetAsync",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphDestroy",
        "cudaGraphLaunch",
        "cudaGraphExecDestroy",
    ]
    assert cuda.calls[5] == ("cudaGraphLaunch", "executable", 77)


@pytest.mark.parametrize("broken", [False, True])
def test_a_failing_recording_ends_and_leaves_nothing(broken):
    cuda = FakeCuda({"cudaStreamEndCapture": Error.cudaErrorIllegalAddress} if broken else {})
    device = CudaDevice(cuda)

    def fail() -> None:
        raise EngineError("no")

    with pytest.raises(EngineError, match="no"):
        device.record(fail)
    assert "cudaStreamEndCapture" in cuda.names()
    assert "cudaGraphInstantiate" not in cuda.names()
    assert ("cudaGraphDestroy" in cuda.names()) is not broken
    assert gc.isenabled()


def test_a_stream_is_given_back_once():
    cuda = FakeCuda()
    device = CudaDevice(cuda)
    device.close()
    device.close()
    del device
    assert cuda.names().count("cudaStreamDestroy") == 1


def test_a_device_that_nobody_holds_gives_its_stream_back():
    cuda = FakeCuda()
    CudaDevice(cuda)
    assert cuda.calls[-1] == ("cudaStreamDestroy", 77)


def test_an_arena_has_aligned_pieces_that_do_not_overlap():
    device = HostDevice()
    arena = DeviceArena(device, {"a": 1, "b": 256, "c": 300})
    places = [arena[name] for name in "abc"]
    assert [place - places[0] for place in places] == [0, 256, 512]
    assert all(place % 256 == 0 for place in places)
    assert arena.bytes == device.used == 1024
    arena.release()
    arena.release()
    assert device.used == 0


def test_an_empty_arena_takes_nothing():
    device = HostDevice()
    DeviceArena(device, {}).release()
    assert device.used == 0
