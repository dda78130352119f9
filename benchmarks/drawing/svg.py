"""Conversion of figures to inline SVG, which takes width, font and colours from the page around it."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from jukebox_deploy.benchmarks.drawing.markup import Markup, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REMOVED = {"metadata", "style"}  # a style element would apply to the whole page

_REFERENCE = re.compile(r"#([\w-]+)")


def inline_svg(figure: Figure, name: str, label: str, page_colours: dict[str, str]) -> Markup:
    """Return a figure as an `<svg>` element.

    `name`: unique on the page; the ids in the element are derived from it, so they are unique and reproducible.
    `label`: description for screen readers. `page_colours`: colours (`#rrggbb`) and the CSS variables that replace
    them, whose values differ between the light and the dark page.
    """
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        for child in [child for child in element if _without_namespace(child.tag) in _REMOVED]:
            element.remove(child)
        element.tag = _without_namespace(element.tag)
        attributes = element.attrib.items()
        element.attrib = {_without_namespace(key): _with_page_colours(value, page_colours) for key, value in attributes}
    _keep_only_used_ids(root)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": printable(label)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _without_namespace(name: str) -> str:
    """Return the name of an element or attribute without its namespace, which HTML does not need."""
    return name.rpartition("}")[2]


def _with_page_colours(value: str, page_colours: dict[str, str]) -> str:
    """Replace colours in the value of an attribute by CSS variables."""
    for colour, variable in page_colours.items():
        value = value.replace(colour, f"var({variable})")
    return value


def _keep_only_used_ids(root: ElementTree.Element) -> None:
    """Remove the ids that nothing refers to: Matplotlib uses the same ones in all figures."""
    elements = list(root.iter())
    used = {name for element in elements for value in element.attrib.values() for name in _REFERENCE.findall(value)}
    for element in elements:
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
