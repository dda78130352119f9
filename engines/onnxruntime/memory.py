"""Memory for the tensors of an ONNX Runtime session: host memory or device memory.

A `Memory` allocates one buffer per tensor. The session binds the addresses of the buffers once, the graphs read and
write there, and the buffers provide access to the values of each slot.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jukebox_deploy.contract import Role, TensorSpec, numpy_dtype
from jukebox_deploy.engines.device import OutOfDeviceMemoryError
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.slots import SlotBuffer
from jukebox_deploy.errors import EngineError


class BoundBuffer(SlotBuffer, Protocol):
    """The memory of one tensor, at a fixed address."""

    @property
    def address(self) -> int:
        """Address of the tensor."""


class Memory(Protocol):
    """Allocates the buffers of one session."""

    @property
    def device(self) -> tuple[str, int]:
        """Name and number of the device, as ONNX Runtime takes them."""

    def allocate(self, spec: TensorSpec, slots: int) -> BoundBuffer:
        """Return a buffer that is filled with zeros."""

    def synchronize(self) -> None:
        """Make all written values visible to the graphs; called before every run."""


class HostBuffer:
    """A tensor in host memory, zeroed lazily; it shares no memory page with another tensor."""

    def __init__(self, spec: TensorSpec, slots: int) -> None:
        size = spec.bytes({"B": slots})
        memory = np.zeros(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE + mmap.PAGESIZE, np.uint8)
        start = -memory.ctypes.data % mmap.PAGESIZE
        self.array = memory[start : start + size].view(numpy_dtype(spec.dtype)).reshape(spec.shape({"B": slots}))

    @property
    def address(self) -> int:
        """Address of the tensor, which is the start of a page."""
        return int(self.array.ctypes.data)

    def write(self, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot."""
        self.array[slot] = value

    def read(self, slot: int) -> np.ndarray:
        """Return a copy of the value of one slot."""
        row: np.ndarray = self.array[slot, ...]
        return row.copy()


class HostMemory:
    """Host memory, which the graphs access directly."""

    device = ("cpu", 0)

    def allocate(self, spec: TensorSpec, slots: int) -> HostBuffer:
        """Return a buffer that is filled with zeros."""
        return HostBuffer(spec, slots)

    def synchronize(self) -> None:
        """Do nothing: buffers and graphs share the memory."""


class DeviceBuffer:
    """A tensor in device memory. Writes are collected, because ONNX Runtime can only copy whole tensors."""

    def __init__(self, spec: TensorSpec, slots: int, memory: DeviceMemory) -> None:
        array = np.zeros(spec.shape({"B": slots}), numpy_dtype(spec.dtype))
        self._memory = memory
        self._value = memory.place(_stored(array))
        self._dtype = array.dtype
        # No graph changes an input, so a host copy of what was uploaded stays valid.
        self._mirror = array if spec.role is Role.INPUT else None
        self._changes: dict[int, np.ndarray] = {}

    @property
    def address(self) -> int:
        """Device address of the tensor."""
        return int(self._value.data_ptr())

    def write(self, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot; it is uploaded before the next run."""
        self._changes[slot] = value.copy()
        self._memory.changed.add(self)

    def read(self, slot: int) -> np.ndarray:
        """Return a copy of the value of one slot."""
        self.upload()
        row: np.ndarray = self._content()[slot, ...]
        return row.copy()

    def upload(self) -> None:
        """Upload the collected writes in one copy."""
        if not self._changes:
            return
        array = self._content()
        for slot, value in self._changes.items():
            array[slot] = value
        self._changes.clear()
        self._value.update_inplace(_stored(array))

    def whole(self) -> np.ndarray:
        """Return a copy of the values of all slots."""
        self.upload()
        return self._content().copy()

    def replace(self, values: np.ndarray) -> None:
        """Write and upload the values of all slots."""
        self._changes = dict(enumerate(values))
        self.upload()

    def _content(self) -> np.ndarray:
        array: np.ndarray = self._value.numpy().copy().view(self._dtype) if self._mirror is None else self._mirror
        return array


def _stored(array: np.ndarray) -> np.ndarray:
    """View bfloat16 as uint16, because ONNX Runtime exchanges no bfloat16 arrays with NumPy."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def bound_dtype(name: str) -> Any:
    """Return an element type in the form that bindings take: NumPy's dtype, or ONNX's number for bfloat16."""
    if name != "bfloat16":
        return numpy_dtype(name)
    import onnx

    return onnx.TensorProto.BFLOAT16


def run_on_arrays(session: Any, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Run a session on arrays in host memory (also bfloat16), by input name; return the outputs of these names."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in feeds.items()}  # the values share their memory
    binding = session.io_binding()
    for name, array in contiguous.items():
        binding.bind_ortvalue_input(name, _value_of(array))
    distinct = dict.fromkeys(names)  # a name may be asked for twice, but is bound once
    for name in distinct:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    found = dict(zip(distinct, binding.get_outputs(), strict=True))
    return [_array_of(found[name]) for name in names]


def _value_of(array: np.ndarray) -> Any:
    """Return an `OrtValue` that shares the memory of an array."""
    value = import_onnxruntime().OrtValue
    if array.dtype.name != "bfloat16":
        return value.ortvalue_from_numpy(array)
    import onnx

    return value.ortvalue_from_numpy_with_onnx_type(_stored(array), onnx.TensorProto.BFLOAT16)


def _array_of(value: Any) -> np.ndarray:
    """Return a copy of the elements of an `OrtValue` in host memory."""
    if value.data_type() != "tensor(bfloat16)":
        array: np.ndarray = value.numpy()
        return array
    stored = (ctypes.c_char * value.tensor_size_in_bytes()).from_address(value.data_ptr())
    return np.frombuffer(bytearray(stored), numpy_dtype("bfloat16")).reshape(value.shape())


def failure(what: str, error: Exception) -> EngineError:
    """Make an error with the first line of ONNX Runtime's message; `OutOfDeviceMemoryError` if memory ran out."""
    said = str(error).strip().partition("\n")[0].rstrip(".")
    said = f"{said}." if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
    if any(word in said for word in _MEMORY_WORDS):
        return OutOfDeviceMemoryError(f"{what}: {said}", "Ask for fewer slots, or export smaller weights.")
    return EngineError(f"{what}: {said}")


_LONGEST = 400  # characters; ONNX Runtime's messages may contain long C++ signatures
_MEMORY_WORDS = ("out of memory", "Failed to allocate memory", "bad_alloc")


class DeviceMemory:
    """Device memory, accessed through ONNX Runtime's copy functions."""

    def __init__(self, runtime: Any, device: tuple[str, int]) -> None:
        """`runtime`: the `onnxruntime` module."""
        self.device = device
        self.changed: set[DeviceBuffer] = set()
        self._runtime = runtime

    def place(self, array: np.ndarray) -> Any:
        """Copy an array to the device, as an `OrtValue`. Raises `EngineError`."""
        try:
            return self._runtime.OrtValue.ortvalue_from_numpy(array.copy(), *self.device)
        except Exception as error:  # ONNX Runtime has many exception types
            raise failure(f"{array.nbytes} bytes cannot be allocated on {self.device[0]}", error) from error

    def allocate(self, spec: TensorSpec, slots: int) -> DeviceBuffer:
        """Return a buffer that is filled with zeros."""
        return DeviceBuffer(spec, slots, self)

    def synchronize(self) -> None:
        """Upload the buffers that have collected writes."""
        while self.changed:
            self.changed.pop().upload()
