"""Windows run as they are in production: step and prefill graphs over the caches of a session's slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind, Precision
from jukebox_deploy.engines.eager.engine import EagerSession
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.graphs import GraphOptions, declare_prefill, declare_step
from jukebox_deploy.models.prior import Prior


@dataclass(frozen=True)
class SlotWindow:
    """What a slot is to do, in ids and positions of the stack's sequence."""

    known: np.ndarray  # ids of the first positions
    end: int
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)  # `start`, `conditioning`, `cross_*`
    prefilled: int | None = None  # of the known ids; the rest is given to the step (default: all)
    uniform: np.ndarray | None = None
    temperature: float = 0.0


@dataclass
class WindowRun:
    """What came out of a slot: its ids, and the logits of the steps by position."""

    ids: np.ndarray
    logits: dict[int, np.ndarray]

    def logits_of(self, positions: range) -> np.ndarray:
        """`[positions, V]`."""
        return np.stack([self.logits[position] for position in positions])


def open_session(config: PriorConfig, prior: Prior, slots: int, precision: Precision = Precision.FP32) -> EagerSession:
    """Slots whose step also gives its logits."""
    options = GraphOptions(precision, slots=(1, slots, slots), logits=True)
    specs = declare_step(config, options), declare_prefill(config, options)
    step, prefill = ((spec, graph_module(spec, prior)) for spec in specs)
    assert (step[0].kind, prefill[0].kind) == (GraphKind.STEP, GraphKind.PREFILL)
    return EagerSession(step, prefill, slots, "cpu")


def fill_caches_with_garbage(session: EagerSession, seed: int = 0) -> None:
    """What a slot's last song might have left: large numbers everywhere."""
    random = np.random.default_rng(seed)
    for spec in session.spec.tensors:
        if spec.in_place:
            for slot in range(session.slots):
                value = session.read(spec.name, slot)
                session.write(spec.name, slot, (50 * random.standard_normal(value.shape)).astype(value.dtype))


class SlotRunner:
    """One slot of a session on its way through a window."""

    def __init__(self, session: EagerSession, config: PriorConfig, slot: int) -> None:
        self.session, self.config, self.slot = session, config, slot
        self.position = self.end = 0

    def load(self, window: SlotWindow) -> None:
        """Put a window into the slot and work through what is to be prefilled."""
        context, dtype = self.config.transformer.context, self.session.spec.tensor("codes").dtype
        codes = np.zeros(context, dtype)
        codes[: len(window.known)] = window.known
        uniform = np.zeros(context, np.float32) if window.uniform is None else window.uniform.astype(np.float32)
        prefilled = len(window.known) if window.prefilled is None else window.prefilled
        values = {"codes": codes, "uniform": uniform, "position": np.int64(0), "known_end": np.int64(prefilled)}
        values |= {"window_end": np.int64(window.end), "temperature": np.float32(window.temperature)}
        values |= {"top_k": np.int64(0), "top_p": np.float32(0), **window.tensors}
        for name, value in values.items():
            self.session.write(name, self.slot, np.asarray(value))
        self.position, self.end, self.logits = 0, window.end, dict[int, np.ndarray]()
        while self.position < prefilled:
            self.session.prefill(range(self.slot, self.slot + 1))
            self.position = int(self.session.read("position", self.slot))
        self.session.write("known_end", self.slot, np.asarray(len(window.known), np.int64))

    @property
    def idle(self) -> bool:
        """Whether the window is full."""
        return self.position >= self.end

    def stepped(self) -> None:
        """Note a step of the session."""
        if not self.idle:
            self.logits[self.position] = self.session.read("logits", self.slot)
            self.position += 1
        assert int(self.session.read("position", self.slot)) == self.position

    def result(self) -> WindowRun:
        """Ids and logits so far."""
        return WindowRun(self.session.read("codes", self.slot)[: self.position].astype(np.int64), self.logits)


def run_windows(session: EagerSession, config: PriorConfig, windows: list[SlotWindow]) -> list[WindowRun]:
    """Run one window in every slot, all together, to their ends."""
    slots = [SlotRunner(session, config, index) for index in range(len(windows))]
    for slot, window in zip(slots, windows, strict=True):
        slot.load(window)
    while not all(slot.idle for slot in slots):
        session.step(1)
        for slot in slots:
            slot.stepped()
    return [slot.result() for slot in slots]
