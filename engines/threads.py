"""How many threads pay for a graph on a CPU; the same answer for every backend."""

from __future__ import annotations

import os

from jukebox_deploy.contract import GraphSpec

SMALL_WEIGHTS = 16 << 20
"""Below this many bytes of weights a step is too short for a second thread to pay."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worthwhile_threads(spec: GraphSpec, weight_bytes: int) -> int:
    """One for a prior of small weights, else all cores: a VQ-VAE works on thousands of samples at a time."""
    small = spec.model_level is not None and weight_bytes < SMALL_WEIGHTS
    return 1 if small else usable_cores()
