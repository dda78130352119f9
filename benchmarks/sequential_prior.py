"""Priors that keep their caches inside, as the original does, so that all slots must be at the same position.

They are run like any eager prior, through the graph declarations without the tensors of the caches.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph
from jukebox_deploy.engines.eager.engine import EagerEngine, EagerSession, GraphFunction, GraphOpener
from jukebox_deploy.errors import EngineError
from jukebox_deploy.listing import words_of

if TYPE_CHECKING:
    from torch import Tensor

    from jukebox_deploy.models.cached_attention import KeyValue
    from jukebox_deploy.models.prior import Choice, Prior, StepResult, Window


class SequentialPrior(ABC):
    """Step and prefill of a prior with caches inside, which hold the first `filled` positions of every slot."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.filled = 0

    def start_at(self, position: int, slots: int) -> None:
        """Discard the caches, and begin with zeros as the keys and values of the first `position` positions."""
        self.filled = position
        self._fill(position, slots)

    def step(self, window: Window, choice: Choice) -> StepResult:
        """Run one position of every slot; all slots must be at position `filled`."""
        result = self._step(window, choice)
        self.filled += 1
        return result

    def prefill(self, window: Window) -> tuple[Tensor, dict[int, KeyValue]]:
        """Prefill one block of known codes, or fewer if fewer are known; return the new `position` `[B]`, no caches.

        All slots must be at position `filled` and have the same `known_end`.
        """
        block = self.prior.core.transformer.geometry.block_length
        count = min(block, int(window.known_end[0]) - self.filled)
        self._prefill(window, count)
        self.filled += count
        return self.prior.leave_prefill(window.position, window.known_end), {}

    @abstractmethod
    def _fill(self, position: int, slots: int) -> None:
        """Fill the caches with zeros, as after `position` positions."""

    @abstractmethod
    def _step(self, window: Window, choice: Choice) -> StepResult:
        """Run one position; `caches` of the result is empty."""

    @abstractmethod
    def _prefill(self, window: Window, count: int) -> None:
        """Prefill the next `count` positions, all of one block."""


class SequentialSession(EagerSession):
    """The slots of a `SequentialPrior`."""

    def __init__(
        self,
        model: SequentialPrior,
        step: tuple[GraphSpec, GraphFunction],
        prefill: tuple[GraphSpec, GraphFunction],
        slots: int,
        device: str = "cpu",
    ) -> None:
        super().__init__(step, prefill, slots, device)
        self._model = model
        model.start_at(0, slots)

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot; a new position also discards the caches of all slots."""
        super().write(tensor, slot, value)
        if tensor == "position" and int(value) != self._model.filled:
            self._model.start_at(int(value), self.slots)

    def step(self, count: int) -> None:
        """Run the step `count` times. Raises `EngineError` unless all slots are at one position."""
        self._check_positions()
        super().step(count)

    def _check_positions(self) -> None:
        """Check once per call, not in each step, because reading positions waits for a GPU."""
        positions = [int(self.read("position", slot)) for slot in range(self.slots)]
        if set(positions) != {self._model.filled}:
            raise EngineError(
                f"the caches of this baseline hold {self._model.filled} positions of every slot, but the slots are at "
                f"positions {words_of(map(str, positions))}; start all slots at one position."
            )

    def prefill(self, slots: range) -> None:
        """Prefill one block of known codes of all slots.

        Raises `EngineError` if `slots` are not all slots, or unless all slots are at one position.
        """
        if len(slots) != self.slots:
            raise EngineError(
                f"this baseline prefills all {self.slots} slots together, but slots {slots.start} to {slots.stop - 1} "
                "were asked for; prefill all of them."
            )
        self._check_positions()
        super().prefill(slots)


class SequentialEngine(EagerEngine):
    """An eager engine whose priors are `SequentialPrior`s."""

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        opener: GraphOpener,
        model: Callable[[int], SequentialPrior],
        threads: int,
        device: str = "cpu",
    ) -> None:
        """`opener`: opens stateless graphs; `model`: returns the prior of a level; `threads`: PyTorch's threads."""
        super().__init__(config, graphs, opener, device)
        self._model = model
        self._threads = threads

    def prior_session(self, level: int, slots: int) -> SequentialSession:
        """Open the step and the prefill of a prior."""
        model = self._model(level)
        step, prefill = (self._function(kind, level, model) for kind in (GraphKind.STEP, GraphKind.PREFILL))
        return SequentialSession(model, step, prefill, slots, self._device)

    def _function(self, kind: GraphKind, level: int, model: SequentialPrior) -> tuple[GraphSpec, GraphFunction]:
        from jukebox_deploy.export.graph_modules import graph_module
        from jukebox_deploy.jobs.opening.eager import on_threads

        spec = find_graph(self.graphs, kind, level, self.config.name)
        spec = dataclasses.replace(spec, tensors=tuple(t for t in spec.tensors if not t.in_place))
        return spec, on_threads(graph_module(spec, cast("Prior", model)), self._threads)
