"""How quantities are written for people: short, in units that they read."""

from __future__ import annotations

from collections.abc import Callable

NOT_MEASURED = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

_SMALLER_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_LARGER_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float) -> str:
    """Three significant digits, and all digits before the point."""
    if 0.0 < abs(value) < 1.0:
        return f"{value:#.3g}"
    return f"{value:,.{max(0, 3 - len(f'{abs(value):.0f}'))}f}" if value else "0"


def short(value: float) -> str:
    """As few digits as say the same: for round numbers, along an axis."""
    return f"{value:,.10g}"


def seconds(value: float | None, written: Callable[[float], str] = number) -> str:
    """In s, ms or µs."""
    return _scaled(value, _SMALLER_SECONDS, written)


def byte_size(value: float | None) -> str:
    """In GB, MB or kB, each a thousand of the next."""
    return _scaled(value, _LARGER_BYTES, number)


def percent(share: float | None) -> str:
    """Of one."""
    return NOT_MEASURED if share is None else f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


def times(ratio: float | None, written: Callable[[float], str] = number) -> str:
    """As a factor."""
    return NOT_MEASURED if ratio is None else f"{written(ratio)}{TIMES}"


def _scaled(value: float | None, units: tuple[tuple[float, str], ...], written: Callable[[float], str]) -> str:
    if value is None:
        return NOT_MEASURED
    if value == 0:
        return "0"
    scale, unit = next(((s, u) for s, u in units if value >= s), units[-1])
    return f"{written(value / scale)} {unit}"
