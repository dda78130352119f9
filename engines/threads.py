"""How many threads pay for a graph on a CPU; the same answer for every backend."""

from __future__ import annotations

import os

SMALL_WEIGHTS = 16 << 20
"""Below this many bytes of weights a step is too short for a second thread to pay."""


def worthwhile_threads(weight_bytes: int) -> int:
    """One for a graph with small weights, else all cores."""
    return 1 if weight_bytes < SMALL_WEIGHTS else os.cpu_count() or 1
