"""Interface of a GPU as the backends need it: memory, copies, one stream, and recording of work for replay.

`cuda_device` implements it with CUDA. Sessions use CUDA only through this interface, so tests can substitute host
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from jukebox_deploy.errors import EngineError

ALIGNMENT = 256
"""Alignment in bytes of the address of every tensor of an engine; required by TensorRT's `setTensorAddress`."""


class Provider(StrEnum):
    """Where ONNX graphs run, by ONNX Runtime's execution providers; PyTorch models run on the first two."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


PYTORCH_PROVIDERS = (Provider.CPU, Provider.CUDA)
"""The providers whose devices PyTorch models run on."""


class NoDeviceError(EngineError):
    """This machine cannot run engines: it has no GPU, no driver, or not the Python package for it."""


class OutOfDeviceMemoryError(EngineError):
    """The device has too little free memory. `said` is the message without general advice, for whoever knows better."""

    def __init__(self, said: str, advice: str = "") -> None:
        super().__init__(f"{said} {advice}".rstrip())
        self.said = said


@dataclass(frozen=True)
class DeviceProperties:
    """Properties of a GPU."""

    name: str
    compute_capability: str  # "8.9"
    memory_bytes: int


class Recording(Protocol):
    """Recorded work (such as a CUDA graph) that can be enqueued repeatedly with one call."""

    def replay(self) -> None:
        """Enqueue the recorded work on the stream."""

    def release(self) -> None:
        """Release the resources of the recording."""


class Device(Protocol):
    """One GPU with one stream, on which all operations run in the order of the calls."""

    @property
    def properties(self) -> DeviceProperties:
        """Properties of the GPU."""

    @property
    def stream(self) -> int:
        """Handle of the stream."""

    def free_bytes(self) -> int:
        """Return the bytes of device memory that no program uses."""

    def allocate(self, size: int) -> int:
        """Allocate aligned memory filled with zeros, and return its address. Raises `OutOfDeviceMemoryError`."""

    def free(self, address: int) -> None:
        """Wait for the stream, and free memory."""

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy an array to the device; the caller may change it afterwards."""

    def download(self, address: int, array: np.ndarray) -> None:
        """Wait for the stream, and fill an array from the device."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""

    def fill(self, address: int, byte: int, size: int) -> None:
        """Set all bytes to one value."""

    def synchronize(self) -> None:
        """Wait until all work on the stream is done. Raises `EngineError` if any of it failed."""

    def record(self, work: Callable[[], None]) -> Recording:
        """Record the work that a function enqueues on the stream, without executing it."""

    def close(self) -> None:
        """Destroy the stream. Calling this again has no effect."""


class DeviceArena:
    """One block of device memory divided into named pieces, so that all of them are allocated or none."""

    def __init__(self, device: Device, sizes: Mapping[str, int]) -> None:
        """`sizes`: bytes by name. Raises `OutOfDeviceMemoryError`."""
        self._device = device
        offsets, total = {}, 0
        for name, size in sizes.items():
            offsets[name] = total
            total += -(-size // ALIGNMENT) * ALIGNMENT
        self.bytes = total
        self._start = device.allocate(total) if total else 0
        self._offsets = offsets

    def __getitem__(self, name: str) -> int:
        """Return the address of a piece."""
        return self._start + self._offsets[name]

    def release(self) -> None:
        """Free the memory. Calling this again has no effect."""
        if self._start:
            start, self._start = self._start, 0
            self._device.free(start)
