"""Building of HTML elements. All text is escaped, so text from a file cannot become markup."""

from __future__ import annotations

import html


class Markup(str):
    """A string that is HTML and must not be escaped."""

    __slots__ = ()


def printable(text: str) -> str:
    """Replace all characters that are not printable by U+FFFD.

    Those are control characters, lone surrogates and marks of the text direction, among others.
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element with these children and attributes; everything that is not `Markup` is escaped.

    In names of attributes, a trailing underscore is removed and others become hyphens: `class_`, `aria_label`.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Return the concatenation of the children; those that are not `Markup` are escaped."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(printable(str(c))) for c in children))
