"""What all backends' prior sessions have in common: checked access to the buffers of the slots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from jukebox_deploy.contract import GraphSpec, Role, TensorSpec, numpy_dtype
from jukebox_deploy.errors import EngineError


class SlotBuffer(Protocol):
    """The memory of one tensor, all slots of it."""

    def write(self, slot: int, value: np.ndarray) -> None:
        """Put the value of one slot."""

    def read(self, slot: int) -> np.ndarray:
        """A copy of the value of one slot."""


class SlotSession(ABC):
    """A `PriorSession` (see `jukebox_deploy.engine`): checks here, memory and runs in the backends.

    States that are not updated in place have two buffers which the step uses in turn; `current`
    says which one holds the state that the next run will read.
    """

    def __init__(self, step: GraphSpec, prefill: GraphSpec, slots: int) -> None:
        """Raises `EngineError` for a number of slots that the graphs were not made for."""
        require_slots(step, slots)
        self._step_spec = step
        self._prefill_spec = prefill
        self._slots = slots
        self.current = 0

    @property
    def spec(self) -> GraphSpec:
        """The table of the step."""
        return self._step_spec

    @property
    def slots(self) -> int:
        """Number of slots, `B`."""
        return self._slots

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        """Put the value of one slot into its buffer; `EngineError` if it does not fit."""
        spec = self._checked(tensor, slot)
        shape = spec.shape({"B": 1})[1:]
        if value.shape != shape or value.dtype != numpy_dtype(spec.dtype):
            raise EngineError(
                f"{self.spec.name}: {tensor!r} of a slot is {value.dtype} {value.shape}, expected {spec.dtype} {shape}."
            )
        self._buffer(spec).write(slot, value)

    def read(self, tensor: str, slot: int) -> np.ndarray:
        """A copy of one slot's value."""
        return self._buffer(self._checked(tensor, slot)).read(slot)

    def prefill(self, slots: range) -> None:
        """Work through one block of known codes for each of these neighbouring slots."""
        if slots.step != 1 or not 0 <= slots.start < slots.stop <= self.slots:
            raise EngineError(f"{self._prefill_spec.name}: {slots} is no range of the {self.slots} slots.")
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
            raise EngineError(f"{self.spec.name}: there is no slot {slot}; it has {self.slots}.")
        return self.spec.tensor(tensor)

    @abstractmethod
    def _buffer(self, spec: TensorSpec) -> SlotBuffer:
        """The buffer that the next run reads (for an output: that the last run wrote)."""

    @abstractmethod
    def _run_prefill(self, slots: range) -> None:
        """One prefill of some slots; a state that is not in place ends up in its current buffer."""

    @abstractmethod
    def _run_step(self) -> None:
        """One step from the current buffers of the states into the other ones."""


def buffer_count(spec: TensorSpec) -> int:
    """How many buffers a tensor of the step needs."""
    return 2 if spec.role is Role.STATE and not spec.in_place else 1


def require_slots(step: GraphSpec, slots: int) -> None:
    """Raise `EngineError` for a number of slots that a step was not made for."""
    (slot_range,) = [r for r in step.ranges if r.symbol == "B"]
    if not slot_range.minimum <= slots <= slot_range.maximum:
        raise EngineError(
            f"{step.name}: {slots} slots asked for, but the engine was made for {slot_range.minimum} "
            f"to {slot_range.maximum}. Export again with another number of slots."
        )
