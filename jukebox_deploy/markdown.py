"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of rows of Markdown; a heading that begins with `>` has its column aligned to the right."""
    names = [heading.removeprefix(">") for heading in headings]
    rules = ["---:" if heading.startswith(">") else "---" for heading in headings]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, rules, *rows))
