"""Lists in messages, cut after the first few items."""

from __future__ import annotations

from collections.abc import Iterable


def listed(items: Iterable[str], most: int) -> str:
    """Join the first `most` items, and say how many more there are: `a, b and 7 more`."""
    every = list(items)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
