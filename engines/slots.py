"""Common base of the backends' prior sessions: checked access to the buffers of the slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from jukebox_deploy.contract import GraphSpec, Role, TensorSpec, numpy_dtype
from jukebox_deploy.errors import EngineError


class SlotBuffer(Protocol):
    """The memory of one tensor, for all slots."""

    def write(self, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot."""

    def read(self, slot: int) -> np.ndarray:
        """Return a copy of the value of one slot."""


class SlotSession(ABC):
    """Base class for implementations of `PriorSession` (see `jukebox_deploy.engine`).

    This class checks arguments; memory and runs are up to the backends. States that are not updated in place are
    double-buffered: each step reads one buffer and writes the other. `current` is the index of the buffer that the next
    run will read.
    """

    def __init__(self, step: GraphSpec, prefill: GraphSpec, slots: int) -> None:
        """Raises `EngineError` for a number of slots outside the range of the graphs."""
        require_slots(step, slots)
        self._step_spec = step
        self._prefill_spec = prefill
        self._slots = slots
        self.current = 0

    @property
    def spec(self) -> GraphSpec:
        """The declaration of the step."""
        return self._step_spec

    @property
    def slots(self) -> int:
        """Number of slots, `B`."""
        return self._slots

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot to its buffer. Raises `EngineError` if its shape or dtype is wrong."""
        spec = self._checked(tensor, slot)
        shape = spec.shape({"B": 1})[1:]
        if value.shape != shape or value.dtype != numpy_dtype(spec.dtype):
            raise EngineError(
                f"{self.spec.name}: {tensor!r} of a slot is {value.dtype} {value.shape}, expected {spec.dtype} {shape}."
            )
        self._buffer(spec).write(slot, value)

    def read(self, tensor: str, slot: int) -> np.ndarray:
        """Return a copy of one slot's value."""
        return self._buffer(self._checked(tensor, slot)).read(slot)

    def prefill(self, slots: range) -> None:
        """Prefill one block of known codes for each of these consecutive slots."""
        if slots.step != 1 or not 0 <= slots.start < slots.stop <= self.slots:
            raise EngineError(
                f"{self._prefill_spec.name}: {slots} is not a range of consecutive slots; there are {self.slots}."
            )
        self._run_prefill(slots)

    def step(self, count: int) -> None:
        """Run the step `count` times for all slots."""
        if count < 0:
            raise EngineError(f"{self.spec.name}: {count} steps asked for; give 0 or more.")
        for _ in range(count):
            self._run_step()
            self.current = 1 - self.current

    def _checked(self, tensor: str, slot: int) -> TensorSpec:
        if not 0 <= slot < self.slots:
            raise EngineError(f"{self.spec.name}: there is no slot {slot}; the session has {self.slots} slots.")
        return self.spec.tensor(tensor)

    @abstractmethod
    def _buffer(self, spec: TensorSpec) -> SlotBuffer:
        """Return the buffer that the next run will read (for an output: that the last run wrote)."""

    @abstractmethod
    def _run_prefill(self, slots: range) -> None:
        """Run the prefill for some slots; the results of double-buffered states must go to their current buffers."""

    @abstractmethod
    def _run_step(self) -> None:
        """Run one step, which reads the current buffers of the double-buffered states and writes the other ones."""


def buffer_count(spec: TensorSpec) -> int:
    """Return the number of buffers that a tensor of the step needs: two for a double-buffered state, otherwise one."""
    return 2 if spec.role is Role.STATE and not spec.in_place else 1


def require_slots(step: GraphSpec, slots: int) -> None:
    """Raise `EngineError` for a number of slots outside the range of a step."""
    made_for = step.range("B")
    if not made_for.minimum <= slots <= made_for.maximum:
        raise EngineError(
            f"{step.name}: {slots} slots asked for, but the engine was made for {made_for.minimum} "
            f"to {made_for.maximum}. Export again with another number of slots."
        )
