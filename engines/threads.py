"""How many threads pay for a graph on a CPU; the same answer for every backend."""

from __future__ import annotations

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.threads import usable_cores

SMALL_WEIGHTS = 16 << 20
"""Below this many bytes of weights a step is too short for a second thread to pay."""


def worthwhile_threads(spec: GraphSpec, weight_bytes: int) -> int:
    """One for a prior of small weights, else all cores: a VQ-VAE works on thousands of samples at a time."""
    small = spec.model_level is not None and weight_bytes < SMALL_WEIGHTS
    return 1 if small else usable_cores()
