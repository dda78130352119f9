"""A clock for tests of what is measured: nothing takes time but what is said to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class StillClock:
    """Time that passes only when a fake works and moves `now`, in seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now
