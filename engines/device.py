"""What a backend needs of a GPU: memory, copies, one stream of work, and steps recorded to be replayed.

`cuda_device` has the real one. A session sees nothing else of CUDA, so that the tests can put host memory in
its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jukebox_deploy.errors import EngineError

ALIGNMENT = 256
"""Bytes that divide the address of every tensor of an engine; `setTensorAddress` of TensorRT asks for it."""


class NoDeviceError(EngineError):
    """There is nothing on this machine that could run an engine: no GPU, no driver, or no package."""


class OutOfDeviceMemoryError(EngineError):
    """The memory of the device is used up."""


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU is."""

    name: str
    compute_capability: str  # "8.9"
    memory_bytes: int


class Recording(Protocol):
    """Work of a stream that was recorded, and can be done again and again with one call."""

    def replay(self) -> None:
        """Put the work into the stream."""

    def release(self) -> None:
        """Give back what it holds."""


class Device(Protocol):
    """One GPU with one stream: everything is done in the order in which it was asked for."""

    @property
    def properties(self) -> DeviceProperties:
        """What it is."""

    @property
    def stream(self) -> int:
        """The handle of its stream."""

    def free_bytes(self) -> int:
        """Memory that nobody uses."""

    def allocate(self, size: int) -> int:
        """The address of so many new bytes, zeros, aligned; `OutOfDeviceMemoryError` if there are not as many."""

    def free(self, address: int) -> None:
        """Give memory back, once the stream has done its work."""

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy an array to the device; it may be changed afterwards."""

    def download(self, address: int, array: np.ndarray) -> None:
        """Fill an array from the device, once the stream has done its work."""

    def copy(self, target: int, source: int, size: int) -> None:
        """Copy within the device."""

    def fill(self, address: int, byte: int, size: int) -> None:
        """Set all bytes to one value."""

    def synchronize(self) -> None:
        """Wait until the stream has done its work; `EngineError` if any of it failed."""

    def record(self, work: Callable[[], None]) -> Recording:
        """Record what a function puts into the stream, without doing it."""

    def close(self) -> None:
        """Give back the stream; a second time does nothing."""


class DeviceArena:
    """One block of device memory cut into named pieces, so that it is there as a whole or not at all."""

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
        """The address of a piece."""
        return self._start + self._offsets[name]

    def release(self) -> None:
        """Give the memory back; a second time does nothing."""
        if self._start:
            start, self._start = self._start, 0
            self._device.free(start)
