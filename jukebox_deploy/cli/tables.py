"""Tables and text on standard output."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CUT = "…"  # what rich puts in place of letters for which there is no room
_WIDEST = 300  # columns


def output_console(width: int = 140, *, markup: bool = True) -> Console:
    """Return a console on standard output without highlighting; `width` columns wide where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=markup)


def print_table(console: Console, table: Table) -> None:
    """Print a table in full: on a narrow terminal, lines run over its edge rather than lose letters and numbers."""
    terminal = console.width

    def cuts(width: int) -> int:
        console.width = width
        with console.capture() as printed:
            console.print(table)
        return printed.get().count(_CUT)

    try:
        own = cuts(_WIDEST)  # those in the text itself
        console.width = next((width for width in range(terminal, _WIDEST, 10) if cuts(width) <= own), _WIDEST)
        console.print(table)
    finally:
        console.width = terminal


def plain_table(*headings: str, right: Collection[str] = (), wrapped: Collection[str] = (), title: str = "") -> Table:
    """Make a table without frames; `right`: right-aligned columns, `wrapped`: columns whose cells may wrap.

    The headings of right-aligned columns are broken into short lines, because their numbers are short.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=title or None, title_justify="left", padding=(0, 1, 0, 0))
    for heading in headings:
        short = textwrap.fill(heading, 8, break_long_words=False) if heading in right else heading
        table.add_column(short, justify="right" if heading in right else "left", no_wrap=heading not in wrapped)
    return table
