"""Number of threads that are worthwhile for a graph on a CPU; the same for every backend."""

from __future__ import annotations

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.threads import usable_cores

SMALL_WEIGHTS = 16 << 20
"""Bytes of weights below which a step is too short to benefit from a second thread."""


def worthwhile_threads(spec: GraphSpec, weight_bytes: int) -> int:
    """Return 1 for a prior with small weights, otherwise the number of usable cores.

    A VQ-VAE benefits from all cores whatever its size, because it processes thousands of samples at a time.
    """
    small = spec.model_level is not None and weight_bytes < SMALL_WEIGHTS
    return 1 if small else usable_cores()
