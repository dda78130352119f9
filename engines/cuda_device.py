"""A GPU, accessed through NVIDIA's Python bindings for the CUDA runtime (`cuda.bindings`).

PyTorch could do the same, but its installation takes gigabytes, and sampling does not need it otherwise.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from jukebox_deploy.engines.device import DeviceProperties, NoDeviceError, OutOfDeviceMemoryError
from jukebox_deploy.engines.replay import no_collection
from jukebox_deploy.errors import EngineError

_DEVICE = 0  # the first device that CUDA_VISIBLE_DEVICES leaves visible


def import_cuda() -> Any:
    """Import the module `cuda.bindings.runtime`. Raises `NoDeviceError`, which says how to install it."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise NoDeviceError(
            f"CUDA's Python bindings are not installed ({error}). Install them: pip install cuda-bindings"
        ) from error
    return runtime


class CudaRecording:
    """An instantiated CUDA graph."""

    def __init__(self, device: CudaDevice, executable: Any) -> None:
        self._device = device
        self._executable = executable

    def replay(self) -> None:
        """Launch the graph; this is a single launch for any number of kernels."""
        self._device.call("cudaGraphLaunch", self._executable, self._device.handle)

    def release(self) -> None:
        """Destroy the graph. Calling this again has no effect."""
        if self._executable is not None:
            executable, self._executable = self._executable, None
            self._device.call("cudaGraphExecDestroy", executable)


class CudaDevice:
    """The first visible GPU, with its own stream. See `Device`."""

    def __init__(self, cuda: Any = None) -> None:
        """`cuda`: a replacement for the module `cuda.bindings.runtime`.

        Raises `NoDeviceError`, which says why there is no usable GPU.
        """
        self._cuda = cuda or import_cuda()
        _require_device(self._cuda)
        self.call("cudaSetDevice", _DEVICE)
        self.handle = self.call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._destroy = weakref.finalize(self, self._cuda.cudaStreamDestroy, self.handle)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime, and return its result, or its results as a tuple.

        Raises `OutOfDeviceMemoryError`, and for any other failure `EngineError` with CUDA's description.
        """
        error, *results = getattr(self._cuda, name)(*arguments)
        errors = self._cuda.cudaError_t
        if error == errors.cudaErrorMemoryAllocation:
            self._cuda.cudaGetLastError()  # clears the error, which later calls would otherwise report again
            raise OutOfDeviceMemoryError(f"{self.properties.name}: the memory of the GPU is used up ({name}).")
        if error != errors.cudaSuccess:
            raise EngineError(f"{name}: {_describe(self._cuda, error)}.")
        return results[0] if len(results) == 1 else tuple(results)

    @functools.cached_property
    def properties(self) -> DeviceProperties:
        """Properties of the GPU."""
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
        """Handle of the stream."""
        return int(self.handle)

    def free_bytes(self) -> int:
        """Return the bytes of device memory that no program uses."""
        free, _ = self.call("cudaMemGetInfo")
        return int(free)

    def allocate(self, size: int) -> int:
        """Allocate memory that is filled with zeros, and return its address, which CUDA aligns to 256 bytes or more."""
        address = int(self.call("cudaMalloc", size))
        self.fill(address, 0, size)
        return address

    def free(self, address: int) -> None:
        """Wait for the stream, and free memory."""
        self.synchronize()
        self.call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy an array to the device; the caller may change it afterwards."""
        source = np.ascontiguousarray(array)
        self._copy(address, source.ctypes.data, source.nbytes, self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        self.synchronize()

    def download(self, address: int, array: np.ndarray) -> None:
        """Fill an array from the device."""
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
        """Capture the work that a function enqueues as a CUDA graph. Other threads may use CUDA during the capture."""
        self.call(
            "cudaStreamBeginCapture", self.handle, self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        try:
            with no_collection():
                work()
        except BaseException:
            error, graph = self._cuda.cudaStreamEndCapture(self.handle)
            if error == self._cuda.cudaError_t.cudaSuccess:  # otherwise the capture is invalid, and there is no graph
                self._cuda.cudaGraphDestroy(graph)
            self._cuda.cudaGetLastError()
            raise
        graph = self.call("cudaStreamEndCapture", self.handle)
        try:
            return CudaRecording(self, self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)

    def close(self) -> None:
        """Destroy the stream, which otherwise happens on garbage collection. Calling this again has no effect."""
        if self._destroy.alive:
            self.synchronize()
            self._destroy()


def free_device_bytes() -> int | None:
    """Return the bytes of the GPU's memory that no program uses; `None` without a GPU or CUDA's Python bindings."""
    try:
        device = CudaDevice()
    except NoDeviceError:
        return None
    try:
        return device.free_bytes()
    finally:
        device.close()


def _require_device(cuda: Any) -> None:
    """Raise `NoDeviceError` unless there are a GPU and a sufficiently recent driver."""
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
    """Convert CUDA's version number to text: `12040` -> `12.4`, and 0 -> the empty string."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _describe(cuda: Any, error: Any) -> str:
    """Return CUDA's description of an error, and the error's name."""
    return f"{_text(cuda.cudaGetErrorString(error)[1])} ({error.name})"


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace").rstrip("\0") if isinstance(value, bytes) else value
