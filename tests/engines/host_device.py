"""Host memory that behaves like a GPU: work waits in the stream until somebody waits for it, and mistakes show.

Memory begins with the wrong content beside each block, is overwritten when it is given back, and nothing
outside of a block is read or written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from jukebox_deploy.engines.device import ALIGNMENT, DeviceProperties, OutOfDeviceMemoryError
from jukebox_deploy.errors import EngineError

Work = Callable[[], None]
_GUARD = 0xA5


@dataclass
class HostRecording:
    device: HostDevice
    works: list[Work]

    def replay(self) -> None:
        self.device.launches += 1
        for work in self.works:
            self.device.enqueue(work)

    def release(self) -> None:
        self.device.recordings.remove(self)


@dataclass
class _Block:
    memory: np.ndarray
    start: int
    size: int

    def guards(self) -> np.ndarray:
        first = self.start - self.memory.ctypes.data
        return np.concatenate([self.memory[:first], self.memory[first + self.size :]])


@dataclass
class HostDevice:
    """Stands for a `Device`."""

    memory_bytes: int = 1 << 30
    compute_capability: str = "8.9"
    stream: int = 7
    launches: int = 0  # of recordings
    waits: int = 0
    closed: bool = False
    recordings: list[HostRecording] = field(default_factory=list)  # that were not released
    blocks: dict[int, _Block] = field(default_factory=dict)
    _waiting: list[Work] = field(default_factory=list)
    _recorded: list[Work] | None = None

    @property
    def recording(self) -> bool:
        return self._recorded is not None

    @property
    def is_busy(self) -> bool:
        """Whether somebody has not waited yet for work in the stream."""
        return bool(self._waiting)

    @property
    def properties(self) -> DeviceProperties:
        return DeviceProperties("a pretended GPU", self.compute_capability, self.memory_bytes)

    @property
    def used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    def free_bytes(self) -> int:
        return self.memory_bytes - self.used

    def allocate(self, size: int) -> int:
        if size > self.free_bytes():
            raise OutOfDeviceMemoryError(f"a pretended GPU: {size} bytes asked for, {self.free_bytes()} are free.")
        memory = np.full(size + 3 * ALIGNMENT, _GUARD, np.uint8)
        start = memory.ctypes.data + ALIGNMENT + -memory.ctypes.data % ALIGNMENT
        self.blocks[start] = _Block(memory, start, size)
        self.fill(start, 0, size)
        return start

    def free(self, address: int) -> None:
        self.synchronize()
        block = self.blocks.pop(address)
        assert (block.guards() == _GUARD).all(), "somebody wrote beside the block"
        block.memory[:] = _GUARD

    def require_inside(self, address: int, size: int) -> None:
        """Fail unless these bytes lie in one block."""
        blocks = self.blocks.values()
        inside = any(block.start <= address and address + size <= block.start + block.size for block in blocks)
        assert inside, f"{size} bytes at {address:#x} are in no block"

    def upload(self, address: int, array: np.ndarray) -> None:
        self.synchronize()
        self.require_inside(address, array.nbytes)
        ctypes.memmove(address, np.ascontiguousarray(array).tobytes(), array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        self.synchronize()
        self.require_inside(address, array.nbytes)
        assert array.flags.c_contiguous
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, target: int, source: int, size: int) -> None:
        def work() -> None:
            self.require_inside(target, size)
            self.require_inside(source, size)
            ctypes.memmove(target, source, size)

        self.enqueue(work)

    def fill(self, address: int, byte: int, size: int) -> None:
        def work() -> None:
            self.require_inside(address, size)
            ctypes.memset(address, byte, size)

        self.enqueue(work)

    def enqueue(self, work: Work) -> None:
        """Put work into the stream, or into the recording under way."""
        assert not self.closed
        (self._waiting if self._recorded is None else self._recorded).append(work)

    def synchronize(self) -> None:
        if self.recording:
            raise EngineError("the stream is being recorded; nobody may wait for it.")
        self.waits += 1
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()

    def record(self, work: Work) -> HostRecording:
        self._recorded = []
        try:
            work()
            recording = HostRecording(self, self._recorded)
        finally:
            self._recorded = None
        self.recordings.append(recording)
        return recording

    def close(self) -> None:
        self.synchronize()
        self.closed = True
