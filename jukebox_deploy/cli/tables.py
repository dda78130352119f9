"""Tables and text on standard output."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def output_console(width: int = 140, *, markup: bool = True) -> Console:
    """Return a console on standard output without highlighting; `width` columns wide where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=markup)


def plain_table(*headings: str, right: Collection[str] = (), wrapped: Collection[str] = (), title: str = "") -> Table:
    """Make a table without frames; `right`: right-aligned columns, `wrapped`: columns whose cells may wrap."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading not in wrapped)
    return table
