"""What the runtime asks of an engine; every backend gives this and the runtime knows no more.

An `Engine` opens the graphs of one bundle. Stateless graphs are called with arrays. The step and
the prefill of a prior belong together: they share the buffers of its slots, which a `PriorSession`
owns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.errors import EngineError


class GraphRunner(Protocol):
    """A stateless graph, ready to run."""

    @property
    def spec(self) -> GraphSpec:
        """The graph's table."""

    @property
    def concurrent_calls(self) -> int:
        """How many calls from as many threads pay; results do not depend on it."""

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once: arrays by input name -> arrays by output name. `EngineError` for wrong feeds."""


class PriorSession(Protocol):
    """The slots of one prior: buffers, and the two graphs that work on them.

    Tensors go by their names in the table, without `past_` or `present_`; `key_0` is the state
    that the next run will read.
    """

    @property
    def spec(self) -> GraphSpec:
        """The table of the step."""

    @property
    def slots(self) -> int:
        """Number of slots, `B`."""

    def write(self, tensor: str, slot: int, value: np.ndarray) -> None:
        """Put the value of one slot (the tensor's shape without `B`) into its buffer."""

    def read(self, tensor: str, slot: int) -> np.ndarray:
        """A copy of one slot's value (the tensor's shape without `B`)."""

    def prefill(self, slots: range) -> None:
        """Work through one block of known codes for each of these neighbouring slots."""

    def step(self, count: int) -> None:
        """Run the step `count` times for all slots."""


class Engine(Protocol):
    """The graphs of a bundle on some backend."""

    @property
    def config(self) -> JukeboxConfig:
        """The model."""

    @property
    def graphs(self) -> Mapping[str, GraphSpec]:
        """The tables of the graphs at hand, by name."""

    @property
    def batch_invariant(self) -> bool:
        """Whether a slot gets the same bits however many slots are computed together, and where it stands."""

    def runner(self, kind: GraphKind, level: int) -> GraphRunner:
        """Open a stateless graph; `EngineError` if the bundle lacks it."""

    def prior_session(self, level: int, slots: int) -> PriorSession:
        """Open step and prefill of a prior with buffers for that many slots."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release everything that was opened."""


def run_by_row(runner: GraphRunner, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph that takes one window at a time for each of `B` windows."""
    results = [runner({name: rows[i : i + 1] for name, rows in feeds.items()}) for i in range(_rows(feeds))]
    return {tensor.name: np.concatenate([found[tensor.name] for found in results]) for tensor in runner.spec.outputs}


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(feeds.values())))


def prior_graphs(prior: PriorConfig) -> tuple[str, ...]:
    """Names of the graphs that windows of a prior go through."""
    kinds = [GraphKind.PREFILL, GraphKind.STEP]
    if prior.labels or prior.conditioner:
        kinds.append(GraphKind.CONDITION)
    if prior.lyrics and prior.lyrics.encoder:
        kinds.append(GraphKind.LYRICS)
    return tuple(f"{kind}_{prior.level}" for kind in kinds)


def require_graphs(engine: Engine, names: Iterable[str], purpose: str) -> None:
    """Raise `EngineError` if an engine lacks one of the graphs that a purpose needs."""
    if missing := [name for name in names if name not in engine.graphs]:
        raise EngineError(
            f"{purpose} needs {', '.join(missing)}, and the bundle has {', '.join(engine.graphs) or 'no graphs'}; "
            "export and build all graphs of the level."
        )
