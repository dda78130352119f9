"""HTML made of values: every text is escaped, so nothing that a file says can become markup."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def printable(text: str) -> str:
    """The text with a replacement mark for what has no glyph: control characters, lone surrogates, text direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. Children that are no `Markup` are escaped, and so are attributes.

    `class_="x"` gives `class="x"`, `aria_label` gives `aria-label`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(printable(str(c))) for c in children))
