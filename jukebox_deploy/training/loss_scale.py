"""The factor that keeps gradients in half precision away from zero.

Source: specification section 18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LossScale:
    """A loss scale that grows while all goes well and is halved by an overflow."""

    value: float = 2.0**16
    window: int | None = 1000  # good steps that double it; `None`: it stays as it is
    maximum: float = 2.0**24

    @classmethod
    def constant(cls, value: float) -> LossScale:
        """A scale that nothing changes."""
        return cls(value, window=None)

    def after(self, good: bool) -> LossScale:
        """The scale of the next step; `good` if this step's gradient was finite."""
        if self.window is None:
            return self
        grown = min(self.maximum, self.value * 2 ** (1 / self.window))
        return replace(self, value=grown if good else self.value / 2)
