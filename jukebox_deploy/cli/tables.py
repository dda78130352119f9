"""Tables and lines for people, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def output_console(width: int = 140, *, markup: bool = True) -> Console:
    """Standard output without colours for numbers; in a pipe, where no terminal can be asked, so many columns wide."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=markup)


def plain_table(*headings: str, right: Collection[str] = (), wrapped: Collection[str] = (), title: str = "") -> Table:
    """A table without frames; the columns `right` hold numbers, and only the cells of `wrapped` go over lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=heading not in wrapped)
    return table
