"""Interface between the runtime and its backends: the runtime uses only these protocols, and every backend has them.

An `Engine` opens the graphs of one bundle. Stateless graphs are called with arrays. The step and the prefill of a prior
share the buffers of its slots, so both belong to one `PriorSession`, which owns these buffers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import declare_prior


class GraphRunner(Protocol):
    """A stateless graph that is open and ready to run."""

    @property
    def spec(self) -> GraphSpec:
        """The declaration of the graph's tensors."""

    @property
    def concurrent_calls(self) -> int:
        """Number of threads from which concurrent calls are worthwhile; the results do not depend on it."""

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph: arrays by input name -> arrays by output name. Raises `EngineError` for wrong feeds."""


class PriorSession(Protocol):
    """The slots of one prior: their buffers, and the two graphs that work on them.

    Tensors are named as in the declaration, without `past_` or `present_`: `key_0` is the state that the next run
    will read.
    """

    @property
    def spec(self) -> GraphSpec:
        """The declaration of the step's tensors."""

    @property
    def slots(self) -> int:
        """The number of slots, `B`."""

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        """Write the value of one slot (of the tensor's shape without `B`) to its buffer."""

    def read(self, tensor: str, slot: int) -> np.ndarray:
        """Return a copy of one slot's value (of the tensor's shape without `B`)."""

    def prefill(self, slots: range) -> None:
        """Prefill one block of known codes for each of these consecutive slots."""

    def step(self, count: int) -> None:
        """Run the step `count` times for all slots."""


class Engine(Protocol):
    """The graphs of a bundle on one backend."""

    @property
    def config(self) -> JukeboxConfig:
        """The configuration of the model."""

    @property
    def graphs(self) -> Mapping[str, GraphSpec]:
        """The declarations of the graphs that the bundle has, by name."""

    @property
    def batch_invariant(self) -> bool:
        """Whether a slot's results are bit-identical for any number of slots and any place among them."""

    def runner(self, kind: GraphKind, level: int) -> GraphRunner:
        """Open a stateless graph. Raises `EngineError` if the bundle lacks it."""

    def prior_session(self, level: int, slots: int) -> PriorSession:
        """Open the step and the prefill of a prior, with buffers for that many slots."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release everything that was opened."""


def run_by_row(runner: GraphRunner, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph once for each of `B` windows, because it takes one window at a time; return `[B, ...]` arrays."""
    results = [runner({name: rows[i : i + 1] for name, rows in feeds.items()}) for i in range(_rows(feeds))]
    return {tensor.name: np.concatenate([found[tensor.name] for found in results]) for tensor in runner.spec.outputs}


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(feeds.values())))


def prior_graphs(prior: PriorConfig) -> tuple[str, ...]:
    """Return the names of the graphs that are needed to sample windows of a prior."""
    return tuple(spec.name for spec in declare_prior(prior))


def open_conditioning(engine: Engine, prior: PriorConfig) -> list[GraphRunner]:
    """Open the graphs that compute the conditioning of a window: those graphs of its prior that have no states."""
    return [engine.runner(spec.kind, spec.level) for spec in declare_prior(prior) if not spec.states]


def require_graphs(engine: Engine, names: Iterable[str], purpose: str) -> None:
    """Raise `EngineError` if an engine lacks one of the graphs `names`; `purpose` begins the message."""
    if missing := [name for name in names if name not in engine.graphs]:
        raise EngineError(
            f"{purpose} needs {', '.join(missing)}, and the bundle has {', '.join(engine.graphs) or 'no graphs'}; "
            "export and build all graphs of the level."
        )
