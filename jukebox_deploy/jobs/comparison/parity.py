"""Comparison of a graph on two engines, shared by export and verification."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import VQVAE_GRAPHS, GraphSpec, Precision, TensorSpec
from jukebox_deploy.engine import Engine
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.validation import Statistics, TensorParity, compare
from jukebox_deploy.jobs.comparison.arrays_on_disk import ArraysOnDisk
from jukebox_deploy.jobs.comparison.graph_runs import FeedMaker, run_graph
from jukebox_deploy.parameter_counts import system_parameters

_FEW_ELEMENTS = 3
"""Factor of the limit, in half precision, for the few elements that a step writes into a cache.

The largest of so few is small now and then: with 72 sound layers in fp16, a row was off by 1.1 % for 1 of 25 seeds.
"""

Measure = Callable[[np.ndarray, np.ndarray], Statistics]
"""Computes statistics of the errors of a tensor: expected and found elements."""

_LARGE_SLOT = 32 << 20
"""Bytes of tensors per slot above which as few slots as possible are compared."""


_SMALL_SYSTEM = 1 << 26
"""Largest total number of parameters of all models to keep them in memory between comparisons."""


def reference(open_engine: Callable[[], Engine], config: JukeboxConfig) -> Callable[[], Engine]:
    """Return a function that opens the reference engine: small models are opened once and kept.

    Large ones are opened for each comparison and freed after it, so that there are never two in memory.
    """
    return functools.cache(open_engine) if _is_small(config) else open_engine


def _is_small(config: JukeboxConfig) -> bool:
    return system_parameters(config) <= _SMALL_SYSTEM


def let_go(config: JukeboxConfig) -> None:
    """Free the engine of a comparison; its modules have reference cycles and need the garbage collector."""
    if not _is_small(config):
        gc.collect()


def slots_to_compare(spec: GraphSpec, wanted: int) -> int:
    """Return the number of slots for a comparison: `wanted`, as far as graph and memory allow."""
    slots = spec.range("B")
    slot_bytes = sum(tensor.bytes({"B": 1, "T": 1}) for tensor in spec.tensors)
    return slots.minimum if slot_bytes > _LARGE_SLOT else max(slots.minimum, min(slots.maximum, wanted))


def sizes_to_compare(spec: GraphSpec) -> Sequence[dict[str, int]]:
    """Return two sets of sizes that differ from those of tracing, unless a size is fixed."""
    few, many = slots_to_compare(spec, 1), slots_to_compare(spec, 3)
    if spec.kind in VQVAE_GRAPHS:
        return [{"B": few, "T": 7}, {"B": many, "T": 33}]
    return [{"B": slots} for slots in dict.fromkeys((few, many))]


def compare_graph(
    open_expected: Callable[[], Engine],
    found: Engine,
    spec: GraphSpec,
    sizes: dict[str, int],
    seed: int,
    measure: Measure | None = None,
) -> list[TensorParity]:
    """Run a graph on both engines with the same random inputs and compare all outputs, in the graph's own precision.

    `open_expected`: see `reference`. `measure`: see `compare`.
    """

    def feed(tensor: TensorSpec) -> np.ndarray:
        return random_feed(tensor, spec, found.config, sizes, seed)

    with ArraysOnDisk(run_graph(open_expected(), spec, sizes["B"], feed)) as expected:
        let_go(found.config)
        rows = [
            row
            for name, array in run_graph(found, spec, sizes["B"], feed)
            for row in _compare_output(spec, name, expected[name], array, feed, measure)
        ]
    let_go(found.config)
    return rows


def _compare_output(
    spec: GraphSpec, name: str, expected: np.ndarray, found: np.ndarray, feed: FeedMaker, measure: Measure | None
) -> list[TensorParity]:
    """Compare one output: all of it, or those elements of a cache that an engine wrote.

    A step writes one position of a cache, whose values may be far smaller than the largest of a random cache.
    """
    (tensor,) = (tensor for tensor in spec.outputs if tensor.output_name == name)
    if tensor.in_place and expected.shape == found.shape:
        before = feed(tensor).reshape(expected.shape)
        written = (expected != before) | (found != before)
        if written.any():
            rows = compare({name: expected[written]}, [(name, found[written])], spec.precision, measure)
            factor = 1 if spec.precision is Precision.FP32 else _FEW_ELEMENTS
            return [replace(row, tolerance=factor * row.tolerance) for row in rows]
    return compare({name: expected}, [(name, found)], spec.precision, measure)
