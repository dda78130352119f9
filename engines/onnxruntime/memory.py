"""Where the tensors of an ONNX Runtime session lie: in host memory, or on a device.

A memory makes one buffer per tensor. The session binds the buffers' addresses once; from then on
the graphs read and write there, and the buffers give the slots' values in and out.
"""

from __future__ import annotations

import mmap
from typing import Any, Protocol

import numpy as np

from jukebox_deploy.contract import Role, TensorSpec, numpy_dtype
from jukebox_deploy.engines.device import OutOfDeviceMemoryError
from jukebox_deploy.engines.slots import SlotBuffer
from jukebox_deploy.errors import EngineError


class BoundBuffer(SlotBuffer, Protocol):
    """The memory of one tensor, at an address that does not change."""

    @property
    def address(self) -> int:
        """Where the tensor begins."""


class Memory(Protocol):
    """Makes the buffers of one session."""

    @property
    def device(self) -> tuple[str, int]:
        """Name and number of the device, as ONNX Runtime spells them."""

    def allocate(self, spec: TensorSpec, slots: int) -> BoundBuffer:
        """A buffer of zeros."""

    def synchronize(self) -> None:
        """Bring what was written to where the graphs read it; called before every run."""


class HostBuffer:
    """A tensor in host memory, lazily zero; no other tensor shares its pages."""

    def __init__(self, spec: TensorSpec, slots: int) -> None:
        size = spec.bytes({"B": slots})
        memory = np.zeros(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE + mmap.PAGESIZE, np.uint8)
        start = -memory.ctypes.data % mmap.PAGESIZE
        self.array = memory[start : start + size].view(numpy_dtype(spec.dtype)).reshape(spec.shape({"B": slots}))

    @property
    def address(self) -> int:
        """Where the tensor begins, at the start of a page."""
        return int(self.array.ctypes.data)

    def write(self, slot: int, value: np.ndarray) -> None:
        """Put the value of one slot."""
        self.array[slot] = value

    def read(self, slot: int) -> np.ndarray:
        """A copy of the value of one slot."""
        row: np.ndarray = self.array[slot, ...]
        return row.copy()


class HostMemory:
    """Host memory, which the graphs use as it is."""

    device = ("cpu", 0)

    def allocate(self, spec: TensorSpec, slots: int) -> HostBuffer:
        """A buffer of zeros."""
        return HostBuffer(spec, slots)

    def synchronize(self) -> None:
        """Nothing to do: it is the same memory."""


class DeviceBuffer:
    """A tensor in the memory of a device. ONNX Runtime copies whole tensors only, so changes are gathered."""

    def __init__(self, spec: TensorSpec, slots: int, memory: DeviceMemory) -> None:
        array = np.zeros(spec.shape({"B": slots}), numpy_dtype(spec.dtype))
        self._memory = memory
        self._value = memory.place(_stored(array))
        self._dtype = array.dtype
        # No graph changes an input, so what was uploaded last stays true.
        self._mirror = array if spec.role is Role.INPUT else None
        self._changes: dict[int, np.ndarray] = {}

    @property
    def address(self) -> int:
        """Where the tensor begins, on its device."""
        return int(self._value.data_ptr())

    def write(self, slot: int, value: np.ndarray) -> None:
        """Put the value of one slot; it reaches the device before the next run."""
        self._changes[slot] = value.copy()
        self._memory.changed.add(self)

    def read(self, slot: int) -> np.ndarray:
        """A copy of the value of one slot."""
        self.upload()
        row: np.ndarray = self._content()[slot, ...]
        return row.copy()

    def upload(self) -> None:
        """Bring the gathered changes to the device, in one copy."""
        if not self._changes:
            return
        array = self._content()
        for slot, value in self._changes.items():
            array[slot] = value
        self._changes.clear()
        self._value.update_inplace(_stored(array))

    def whole(self) -> np.ndarray:
        """A copy of all slots' values."""
        self.upload()
        return self._content().copy()

    def replace(self, values: np.ndarray) -> None:
        """Put the values of all slots."""
        self._changes = dict(enumerate(values))
        self.upload()

    def _content(self) -> np.ndarray:
        array: np.ndarray = self._value.numpy().copy().view(self._dtype) if self._mirror is None else self._mirror
        return array


def _stored(array: np.ndarray) -> np.ndarray:
    """As ONNX Runtime copies it: it takes no bfloat16 from NumPy and gives none back, but any two bytes."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def bound_dtype(spec: TensorSpec) -> Any:
    """What a binding is told of a tensor's numbers: their NumPy dtype, or ONNX's number where NumPy has none."""
    if spec.dtype != "bfloat16":
        return numpy_dtype(spec.dtype)
    import onnx

    return onnx.TensorProto.BFLOAT16


def failure(what: str, error: Exception) -> EngineError:
    """An error with ONNX Runtime's first words, of memory if it is that which ran out."""
    said = str(error).strip().partition("\n")[0]
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
    if any(word in said for word in _MEMORY_WORDS):
        return OutOfDeviceMemoryError(f"{what}: {said} Ask for fewer slots, or export smaller weights.")
    return EngineError(f"{what}: {said}")


_LONGEST = 400  # letters; whole signatures of C++ follow
_MEMORY_WORDS = ("out of memory", "Failed to allocate memory", "bad_alloc")


class DeviceMemory:
    """The memory of a device, reached through ONNX Runtime's own copies."""

    def __init__(self, runtime: Any, device: tuple[str, int]) -> None:
        """`runtime`: the `onnxruntime` module."""
        self.device = device
        self.changed: set[DeviceBuffer] = set()
        self._runtime = runtime

    def place(self, array: np.ndarray) -> Any:
        """A copy of an array on the device, as an `OrtValue`. Raises `EngineError`."""
        try:
            return self._runtime.OrtValue.ortvalue_from_numpy(array.copy(), *self.device)
        except Exception as error:  # the runtime raises many kinds
            raise failure(f"{array.nbytes} bytes find no place on {self.device[0]}", error) from error

    def allocate(self, spec: TensorSpec, slots: int) -> DeviceBuffer:
        """A buffer of zeros."""
        return DeviceBuffer(spec, slots, self)

    def synchronize(self) -> None:
        """Upload every buffer with changes, once."""
        while self.changed:
            self.changed.pop().upload()
