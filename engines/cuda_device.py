"""A GPU through the CUDA runtime, by NVIDIA's own Python bindings (`cuda.bindings`).

PyTorch could do the same, but weighs gigabytes, and sampling does without it.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jukebox_deploy.engines.device import DeviceProperties, NoDeviceError, OutOfDeviceMemoryError
from jukebox_deploy.errors import EngineError

_DEVICE = 0  # the first one that CUDA_VISIBLE_DEVICES leaves visible


def import_cuda() -> Any:
    """The module `cuda.bindings.runtime`; `NoDeviceError` says how to install it."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise NoDeviceError(
            f"CUDA's Python bindings are not installed ({error}). Install them: pip install cuda-bindings"
        ) from error
    return runtime


class CudaRecording:
    """A CUDA graph, ready to be launched."""

    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self._device = device
        self._executable = executable

    def replay(self) -> None:
        """One launch, whatever the number of kernels."""
        self._device.call("cudaGraphLaunch", self._executable, self._device.handle)

    def release(self) -> None:
        """A second time does nothing."""
        if self._executable is not None:
            executable, self._executable = self._executable, None
            self._device.call("cudaGraphExecDestroy", executable)


class CudaDevice:
    """The first visible GPU, with a stream of its own. See `Device`."""

    def __init__(self, cuda: Any = None) -> None:
        """`cuda`: the module `cuda.bindings.runtime`, or what stands for it.

        Raises `NoDeviceError` with the reason why there is no GPU to use.
        """
        self._cuda = cuda or import_cuda()
        _require_device(self._cuda)
        self.call("cudaSetDevice", _DEVICE)
        self.handle = self.call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._destroy = weakref.finalize(self, self._cuda.cudaStreamDestroy, self.handle)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime; its result, or a tuple of several.

        Raises `OutOfDeviceMemoryError`, and `EngineError` with CUDA's own words for any other failure.
        """
        error, *results = getattr(self._cuda, name)(*arguments)
        errors = self._cuda.cudaError_t
        if error == errors.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()  # or the next call would report it again
            raise OutOfDeviceMemoryError(f"{self.properties.name}: the memory of the GPU is used up ({name}).")
        if error != errors.cudaSuccess:
            raise EngineError(f"{name}: {_describe(self._cuda, error)}.")
        return results[0] if len(results) == 1 else tuple(results)

    @functools.cached_property
    def properties(self) -> DeviceProperties:
        """What it is."""
        attributes = self._cuda.cudaDeviceAttr
        major, minor = (
            self.call("cudaDeviceGetAttribute", attribute, _DEVICE)
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        found = self.call("cudaGetDeviceProperties", _DEVICE)
        return DeviceProperties(_text(found.name), f"{major}.{minor}", int(found.totalGlobalMem))

    @property
    def stream(self) -> int:
        """The handle of its stream."""
        return int(self.handle)

    def free_bytes(self) -> int:
        """Memory that nobody uses, other programs included."""
        free, _ = self.call("cudaMemGetInfo")
        return int(free)

    def allocate(self, size: int) -> int:
        """New bytes, zeros; CUDA aligns them to 256 at least."""
        address = int(self.call("cudaMalloc", size))
        self.fill(address, 0, size)
        return address

    def free(self, address: int) -> None:
        """Give memory back."""
        self.synchronize()
        self.call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy from host memory, which may be changed afterwards."""
        source = np.ascontiguousarray(array)
        self._copy(address, source.ctypes.data, source.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        self.synchronize()

    def download(self, address: int, array: np.ndarray) -> None:
        """Copy to host memory."""
        self._copy(array.ctypes.data, address, array.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        self.synchronize()

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""
        self._copy(target, source, size, self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        self.call("cudaMemcpyAsync", target, source, size, kind, self.handle)

    def fill(self, address: int, byte: int, size: int) -> None:
        """Set all bytes to one value."""
        self.call("cudaMemsetAsync", address, byte, size, self.handle)

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.call("cudaStreamSynchronize", self.handle)

    def record(self, work: Callable[[], None]) -> CudaRecording:
        """A CUDA graph of what a function puts into the stream. Other threads may go on using CUDA meanwhile."""
        self.call(
            "cudaStreamBeginCapture", self.handle, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        try:
            with _no_collection():
                work()
        except BaseException:
            error, graph = self._cuda.cudaStreamEndCapture(self.handle)
            if error == self._cuda.cudaError_t.cudaSuccess:  # it may be whole; what it says of a broken one is no news
                self._cuda.cudaGraphDestroy(graph)
            self._cuda.cudaGetLastError()
            raise
        graph = self.call("cudaStreamEndCapture", self.handle)
        try:
            return CudaRecording(self, self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)

    def close(self) -> None:
        """Give back the stream, as happens when nobody holds the device any more; a second time does nothing."""
        if self._destroy.alive:
            self.synchronize()
            self._destroy()


@contextmanager
def _no_collection() -> Iterator[None]:
    """What the collector finds may wait for the stream, which nobody may while it is recorded."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _require_device(cuda: Any) -> None:
    """Raise `NoDeviceError` unless there is a GPU and a driver that is new enough."""
    errors = cuda.cudaError_t
    error, count = cuda.cudaGetDeviceCount()
    if error == errors.cudaSuccess and count:
        return
    driver, runtime = (_version(function()[1]) for function in (cuda.cudaDriverGetVersion, cuda.cudaRuntimeGetVersion))
    if error == errors.cudaErrorInsufficientDriver and driver:
        raise NoDeviceError(
            f"the NVIDIA driver is too old: it is for CUDA {driver}, and this program uses CUDA {runtime}. "
            "Update the driver."
        )
    if not driver:
        raise NoDeviceError("there is no NVIDIA driver on this machine; engines for TensorRT run on an NVIDIA GPU.")
    reason = "CUDA sees no GPU" if error in (errors.cudaSuccess, errors.cudaErrorNoDevice) else _describe(cuda, error)
    raise NoDeviceError(
        f"there is a driver for CUDA {driver}, but no GPU to use: {reason}. Look at `nvidia-smi` and at the variable "
        "CUDA_VISIBLE_DEVICES."
    )


def _version(number: int) -> str:
    """`12040` -> `12.4`; nothing for 0."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _describe(cuda: Any, error: Any) -> str:
    """CUDA's sentence for an error, and its name."""
    return f"{_text(cuda.cudaGetErrorString(error)[1])} ({error.name})"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace").rstrip("\0") if isinstance(value, bytes) else value
