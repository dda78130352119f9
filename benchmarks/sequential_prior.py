"""Priors that keep their caches themselves, as the original does: all slots stand at one position.

Behind the graphs' tables they look like any eager prior, only that no cache is among the tensors.
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

if TYPE_CHECKING:
    from torch import Tensor

    from jukebox_deploy.models.cached_attention import KeyValue
    from jukebox_deploy.models.prior import Choice, Prior, StepResult, Window


class SequentialPrior(ABC):
    """Step and prefill over `prior`, with caches inside. `filled` positions have been worked through."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self.filled = 0

    def start_at(self, position: int, slots: int) -> None:
        """Begin anew, as if keys and values of `position` positions were zero."""
        self.filled = position
        self._fill(position, slots)

    def step(self, window: Window, choice: Choice) -> StepResult:
        """One position of every slot."""
        self._check(window)
        result = self._step(window, choice)
        self.filled += 1
        return result

    def prefill(self, window: Window) -> tuple[Tensor, dict[int, KeyValue]]:
        """One block of known codes, or as many as are known: the new `position` `[B]`, and no caches."""
        self._check(window)
        block = self.prior.core.transformer.geometry.block_length
        count = min(block, int(window.known_end[0]) - self.filled)
        self._prefill(window, count)
        self.filled += count
        return self.prior.leave_prefill(window.position, window.known_end), {}

    def _check(self, window: Window) -> None:
        positions = window.position.tolist()
        if set(positions) != {self.filled}:
            raise EngineError(
                f"caches that grow hold {self.filled} positions of every slot, but the slots stand at {positions}; "
                "start all of them at one position."
            )

    @abstractmethod
    def _fill(self, position: int, slots: int) -> None:
        """Caches of that many positions, all zero."""

    @abstractmethod
    def _step(self, window: Window, choice: Choice) -> StepResult:
        """One position; the result has no caches."""

    @abstractmethod
    def _prefill(self, window: Window, count: int) -> None:
        """The next `count` positions, all of one block."""


class SequentialSession(EagerSession):
    """The slots of a prior that keeps its caches itself."""

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
        """As every session; a new position begins the caches anew."""
        super().write(tensor, slot, value)
        if tensor == "position" and int(value) != self._model.filled:
            self._model.start_at(int(value), self.slots)

    def prefill(self, slots: range) -> None:
        """As every session, but for all slots together."""
        if len(slots) != self.slots:
            raise EngineError(f"caches that grow are filled for all {self.slots} slots together, not for {slots}.")
        super().prefill(slots)


class SequentialEngine(EagerEngine):
    """An eager engine whose priors keep their caches themselves."""

    def __init__(
        self,
        config: JukeboxConfig,
        graphs: Mapping[str, GraphSpec],
        opener: GraphOpener,
        model: Callable[[int], SequentialPrior],
        threads: int,
        device: str = "cpu",
    ) -> None:
        """`opener` opens stateless graphs, `model` the prior of a level; `threads` of PyTorch while it runs."""
        super().__init__(config, graphs, opener, device)
        self._model = model
        self._threads = threads

    def prior_session(self, level: int, slots: int) -> SequentialSession:
        """Open step and prefill of a prior."""
        model = self._model(level)
        step, prefill = (self._function(kind, level, model) for kind in (GraphKind.STEP, GraphKind.PREFILL))
        return SequentialSession(model, step, prefill, slots, self._device)

    def _function(self, kind: GraphKind, level: int, model: SequentialPrior) -> tuple[GraphSpec, GraphFunction]:
        from jukebox_deploy.export.graph_modules import graph_module
        from jukebox_deploy.jobs.opening.eager import on_threads

        spec = find_graph(self.graphs, kind, level, self.config.name)
        spec = dataclasses.replace(spec, tensors=tuple(t for t in spec.tensors if not t.in_place))
        return spec, on_threads(graph_module(spec, cast("Prior", model)), self._threads)
