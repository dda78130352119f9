"""The slots of a prior on TensorRT: buffers in device memory, whose addresses are bound to step and prefill.

No data passes through the host between steps. A cache has one buffer, which is updated in place; the other states are
double-buffered, so each step reads one buffer and writes the other.
"""

from __future__ import annotations

import warnings
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from jukebox_deploy.contract import Role, TensorSpec, numpy_dtype
from jukebox_deploy.engines.device import ALIGNMENT, Device, DeviceArena
from jukebox_deploy.engines.replay import Recorder, ReplayedSteps, Turn, Watched, tensors_to_watch
from jukebox_deploy.engines.slots import SlotSession, buffer_count
from jukebox_deploy.engines.tensorrt.graph import Addresses, TensorRtGraph
from jukebox_deploy.errors import EngineError

_WORK = "working memory"


@dataclass(frozen=True)
class _DeviceBuffer:
    """The memory of one tensor."""

    device: Device
    spec: TensorSpec
    address: int

    def slot_address(self, slot: int) -> int:
        """Return the address of a slot; slots are the outermost axis."""
        return self.address + slot * self.spec.bytes({"B": 1})

    def write(self, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot."""
        self.device.upload(self.slot_address(slot), value)

    def read(self, slot: int) -> np.ndarray:
        """Return a copy of the value of one slot."""
        value = np.empty(self.spec.shape({"B": 1})[1:], numpy_dtype(self.spec.dtype))
        self.device.download(self.slot_address(slot), value)
        return value


@dataclass(frozen=True)
class _WatchedBuffer:
    """The first slots of a buffer, for `ReplayedSteps`."""

    buffer: _DeviceBuffer
    slots: int

    @property
    def name(self) -> str:
        """See `Watched`."""
        return self.buffer.spec.name

    @property
    def is_read(self) -> bool:
        """See `Watched`."""
        return self.buffer.spec.in_place

    def read(self) -> np.ndarray:
        """See `Watched`."""
        values = np.empty(self.buffer.spec.shape({"B": self.slots}), numpy_dtype(self.buffer.spec.dtype))
        self.buffer.device.download(self.buffer.address, values)
        return values

    def write(self, values: np.ndarray) -> None:
        """See `Watched`."""
        self.buffer.device.upload(self.buffer.address, values)

    def wipe(self) -> None:
        """See `Watched`."""
        self.buffer.device.fill(self.buffer.address, 0xFF, self.buffer.spec.bytes({"B": self.slots}))


@dataclass(frozen=True)
class _Copy:
    """A copy within device memory."""

    target: int
    source: int
    size: int


class TensorRtSession(SlotSession):
    """The slots of a prior, bound to step and prefill."""

    def __init__(
        self, step: TensorRtGraph, prefill: TensorRtGraph, slots: int, device: Device, replay: bool | None = None
    ) -> None:
        """Takes ownership of both graphs. `replay`: record the step as CUDA graphs; `None`: if that is possible.

        Raises `EngineError` for a number of slots outside the range of the graphs, and for a step that cannot be
        recorded although `replay` is true; `OutOfDeviceMemoryError` if the buffers do not fit.
        """
        with ExitStack() as stack:
            stack.callback(_release, device, None, step, prefill, None)
            super().__init__(step.spec, prefill.spec, slots)
            self._device = device
            self._step = step
            self._prefill = prefill
            self._arena = DeviceArena(device, self._sizes())
            stack.callback(self._arena.release)
            for graph in (step, prefill):  # they never run at the same time
                graph.set_memory(self._arena[_WORK], self._work_bytes())
            step.set_sizes({"B": slots})
            self._addresses = [self._step_addresses(current) for current in (0, 1)]
            recorder = Recorder(device.record, required=replay is True) if self._can_replay(replay) else None
            self._steps = self._make_steps(recorder)
            stack.pop_all()
        self._release = weakref.finalize(self, _release, device, self._steps, step, prefill, self._arena)

    def _can_replay(self, wanted: bool | None) -> bool:
        if wanted is False or self._step.capturable():
            return wanted is not False
        said = f"{self.spec.name}: the runtime says that this step cannot be recorded"
        if wanted:
            raise EngineError(f"{said}; drop --cuda-graph.")
        warnings.warn(f"{said}. Steps run without a CUDA graph.", RuntimeWarning, stacklevel=2)
        return False

    @property
    def replays(self) -> bool:
        """Whether steps are recorded and replayed; false if that is not wanted, not possible, or has failed."""
        return self._steps.records

    def close(self) -> None:
        """Wait for the device, and release everything on it. Calling this again has no effect."""
        self._release()

    def _work_bytes(self) -> int:
        return max(self._step.memory_bytes, self._prefill.memory_bytes)

    def _sizes(self) -> dict[str, int]:
        """Return the bytes of every buffer, by its key in the arena."""
        sizes = {_WORK: self._work_bytes()}
        for spec in self.spec.tensors:
            for index in range(buffer_count(spec)):
                sizes[_key(spec, index)] = spec.bytes({"B": self.slots})
        for spec in self._prefill.spec.tensors:
            # Intermediate buffers for tensors that a prefill of some slots cannot read or write at their own address.
            size = spec.bytes({"B": self.slots})
            if spec.bytes({"B": 1}) % ALIGNMENT:
                sizes[f"{spec.name} aligned"] = size
            if spec.role is Role.STATE and not spec.in_place:
                sizes[f"{spec.name} result"] = size
        return sizes

    def _buffer(self, spec: TensorSpec) -> _DeviceBuffer:
        return self._current(spec, self.current)

    def _current(self, spec: TensorSpec, current: int) -> _DeviceBuffer:
        return _DeviceBuffer(self._device, spec, self._arena[_key(spec, current % buffer_count(spec))])

    def _step_addresses(self, current: int) -> Addresses:
        return Addresses(
            {spec.name: self._current(spec, current).address for spec in self.spec.inputs},
            {spec.name: self._current(spec, 1 - current).address for spec in self.spec.outputs},
        )

    def _make_steps(self, recorder: Recorder | None) -> ReplayedSteps:
        turns = [Turn(self._watched(current), partial(self._step.bind, self._addresses[current])) for current in (0, 1)]
        return ReplayedSteps(self.spec.name, recorder, self._step.enqueue, turns)

    def _watched(self, current: int) -> list[Watched]:
        """Return the tensors to compare after a step of this turn; of a cache only one slot."""
        return [
            _WatchedBuffer(self._current(spec, 1 - current), 1 if spec.in_place else self.slots)
            for spec in tensors_to_watch(self.spec)
        ]

    def _run_step(self) -> None:
        self._steps.run(self.current)

    def _run_prefill(self, slots: range) -> None:
        addresses, before, after = self._prefill_addresses(slots)
        self._prefill.set_sizes({"B": len(slots)})
        self._prefill.bind(addresses)
        self._copy(before)
        self._prefill.enqueue()
        self._copy(after)

    def _prefill_addresses(self, slots: range) -> tuple[Addresses, list[_Copy], list[_Copy]]:
        """Return the addresses for a prefill of some slots, and the copies before and after it.

        TensorRT needs aligned addresses, so slots at other addresses are copied to aligned buffers and back.
        """
        inputs: dict[str, int] = {}
        outputs: dict[str, int] = {}
        before, after = [], []
        for spec in self._prefill.spec.tensors:
            place = self._current(self.spec.tensor(spec.name), self.current).slot_address(slots.start)
            size = spec.bytes({"B": len(slots)})
            inputs[spec.name] = place
            if place % ALIGNMENT:
                inputs[spec.name] = self._arena[f"{spec.name} aligned"]
                before.append(_Copy(inputs[spec.name], place, size))
            if spec.role is Role.STATE:
                outputs[spec.name] = inputs[spec.name] if spec.in_place else self._arena[f"{spec.name} result"]
                if outputs[spec.name] != place:
                    after.append(_Copy(place, outputs[spec.name], size))
        return Addresses(inputs, outputs), before, after

    def _copy(self, copies: list[_Copy]) -> None:
        for copy in copies:
            self._device.copy(copy.target, copy.source, copy.size)


def _key(spec: TensorSpec, index: int) -> str:
    return f"{spec.name} {index}"


def _release(
    device: Device,
    steps: ReplayedSteps | None,
    step: TensorRtGraph,
    prefill: TensorRtGraph,
    arena: DeviceArena | None,
) -> None:
    """Release recordings before contexts, contexts before engines, and memory last, each even if another one fails."""
    with ExitStack() as stack:
        for owner in (arena, step, prefill, steps):
            if owner is not None:
                stack.callback(owner.release)
        device.synchronize()
