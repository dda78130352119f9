"""Learning-rate schedule. Source: specification section 18."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.errors import ConfigError


@dataclass(frozen=True)
class LearningRate:
    """A schedule with a linear warm-up, a constant peak, and a linear decay to zero."""

    peak: float
    warm_up: int = 100  # number of steps until the peak
    linear_decay_start: int | None = None  # step at which the decay begins; `None`: never
    linear_decay_length: int = 0  # steps

    def __post_init__(self) -> None:
        if self.linear_decay_start is not None and self.linear_decay_length < 1:
            raise ConfigError(f"linear decay length: expected 1 or more, found {self.linear_decay_length}.")

    def at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0; step 0 already has `peak / warm_up`."""
        warm = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        return self.peak * warm * self._remaining(step)

    def _remaining(self, step: int) -> float:
        if self.linear_decay_start is None:
            return 1.0
        return min(1.0, max(0.0, 1 - (step - self.linear_decay_start) / self.linear_decay_length))
