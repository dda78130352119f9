"""A figure as SVG that lives inside a page: it takes the page's width, font and colours."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from jukebox_deploy.benchmarks.drawing.markup import Markup, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEFT_OUT = {"metadata", "style"}  # the style would be that of the whole page

_REFERENCE = re.compile(r"#([\w-]+)")


def inline_svg(figure: Figure, name: str, label: str, page_colours: dict[str, str]) -> Markup:
    """The figure as an `<svg>` element.

    `name` makes it the same at every run, and its ids its own among the figures of a page. Colours
    in `page_colours` (`#rrggbb`) become those variables of the page, which knows dark from light.
    """
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        for child in [child for child in element if _plain(child.tag) in _LEFT_OUT]:
            element.remove(child)
        element.tag = _plain(element.tag)
        element.attrib = {_plain(key): _adapted(value, page_colours) for key, value in element.attrib.items()}
    _keep_only_used_ids(root)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": printable(label)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _plain(name: str) -> str:
    """Without its namespace, which HTML does not ask for."""
    return name.rpartition("}")[2]


def _adapted(value: str, page_colours: dict[str, str]) -> str:
    for colour, variable in page_colours.items():
        value = value.replace(colour, f"var({variable})")
    return value


def _keep_only_used_ids(root: ElementTree.Element) -> None:
    """Matplotlib names every group alike in all figures; what refers to nothing needs no name."""
    elements = list(root.iter())
    used = {name for element in elements for value in element.attrib.values() for name in _REFERENCE.findall(value)}
    for element in elements:
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
