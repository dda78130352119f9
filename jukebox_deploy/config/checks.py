"""Checks that all configurations share. Each raises `ConfigError`."""

from __future__ import annotations

import math

from jukebox_deploy.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with that message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_at_least(lowest: int, where: str, **sizes: int | None) -> None:
    """Require that named sizes are at least `lowest`; `None` stands for a size that is not set."""
    for name, size in sizes.items():
        require(size is None or size >= lowest, f"{where}: {name} must be at least {lowest}, found {size}.")


def require_finite(where: str, **numbers: float) -> None:
    """Require that named numbers are finite and not negative."""
    for name, number in numbers.items():
        good = math.isfinite(number) and number >= 0
        require(good, f"{where}: {name} must be finite and not negative, found {number}.")


def exact_division(number: int, divisor: int, what: str) -> int:
    """Return `number / divisor`; raise a `ConfigError` that names `what` if there is a remainder."""
    if divisor <= 0 or number % divisor:
        raise ConfigError(f"{what}: {number} is not a multiple of {divisor}; change one of the two.")
    return number // divisor
