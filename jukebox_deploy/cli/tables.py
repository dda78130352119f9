"""Tables and text on standard output."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CUT = "…"  # what rich puts in place of letters for which there is no room
_WIDEST = 300  # columns


def output_console(width: int = 140) -> Console:
    """Return a console on standard output, `width` columns wide where it is no terminal.

    It prints text as it is: brackets and `:names:` in it, for instance in a path, are no markup and no emoji.
    """
    from rich.console import Console

    columns = None if sys.stdout.isatty() else width
    return Console(width=columns, highlight=False, markup=False, emoji=False)


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


def print_rows(
    console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> None:
    """Print rows as a `plain_table` in which every cell may wrap."""
    table = plain_table(*headings, right=right, wrapped=headings)
    for row in rows:
        table.add_row(*row)
    print_table(console, table)
