"""The course of the learning rate. Source: specification section 18."""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.errors import ConfigError


@dataclass(frozen=True)
class LearningRate:
    """A linear warm-up, then steps of a geometric decay (by default none), then a line down to zero."""

    peak: float
    warm_up: int = 100  # steps until the peak
    gamma: float = 1.0  # factor of the geometric decay
    decay_steps: int | None = None  # between two multiplications by `gamma`; `None`: never
    linear_decay_start: int | None = None  # step from which the line goes down; `None`: never
    linear_decay_length: int = 0  # its steps

    def __post_init__(self) -> None:
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ConfigError(f"decay steps: expected 1 or more, found {self.decay_steps}.")
        if self.linear_decay_start is not None and self.linear_decay_length < 1:
            raise ConfigError(f"linear decay length: expected 1 or more, found {self.linear_decay_length}.")

    def at(self, step: int) -> float:
        """The rate of a step; the first is 0. It already moves a little: `peak / warm_up`."""
        warm = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        decayed = self.gamma ** (step // self.decay_steps) if self.decay_steps else 1.0
        return self.peak * warm * decayed * self._remaining(step)

    def finished(self, step: int) -> bool:
        """Whether the line has reached zero at this step, and nothing is learnt from there on."""
        return self._remaining(step) == 0

    def _remaining(self, step: int) -> float:
        if self.linear_decay_start is None:
            return 1.0
        return min(1.0, max(0.0, 1 - (step - self.linear_decay_start) / self.linear_decay_length))
