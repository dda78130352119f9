"""Dynamic loss scale, which keeps gradients in half precision from underflowing.

Source: specification section 18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LossScale:
    """A loss scale that grows with every good step and is halved after an overflow."""

    value: float = 2.0**16
    window: int | None = 1000  # number of good steps in which it doubles; `None`: it is constant
    maximum: float = 2.0**24

    @classmethod
    def constant(cls, value: float) -> LossScale:
        """Return a constant scale."""
        return cls(value, window=None)

    def after(self, good: bool) -> LossScale:
        """Return the scale for the next step; `good` means that this step's gradient was finite."""
        if self.window is None:
            return self
        grown = min(self.maximum, self.value * 2 ** (1 / self.window))
        return replace(self, value=grown if good else self.value / 2)
