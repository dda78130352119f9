"""What several commands share: how lists are read, and the line that shows progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


def comma_separated(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A click callback: `a, b` -> `("a", "b")`; nothing given, nothing in it."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


@contextmanager
def progress_line(silent: bool, first: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that tells what is being done, begun with `first`; only on a terminal."""
    if silent or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(first) as status:
        yield status.update
