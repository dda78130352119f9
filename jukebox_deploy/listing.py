"""Lists in messages: whole, or cut after the first few items, and the shapes of tensors."""

from __future__ import annotations

from collections.abc import Iterable


def words_of(items: Iterable[str], last: str = "and") -> str:
    """Join all items as a sentence does, with the word `last` before the last one: `a, b and c`."""
    every = list(items)
    return f" {last} ".join(filter(None, (", ".join(every[:-1]), *every[-1:])))


def shape_text(sizes: Iterable[int | str]) -> str:
    """Write the sizes of a tensor: `[B, 4]`."""
    return f"[{', '.join(map(str, sizes))}]"


def listed(items: Iterable[str], most: int) -> str:
    """Join the first `most` items, and say how many more there are: `a, b and 7 more`."""
    every = list(items)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
