"""Self-contained HTML pages: the style sheet is included, and there are no scripts and no network requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jukebox_deploy.benchmarks.drawing.markup import Markup, join, tag

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --ink: #1f2328; --muted: #59636e; --track: #d8dee4;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1216; --card: #181d23; --ink: #e6e9ed; --muted: #9aa4af; --track: #353d47; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid var(--track); }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
p, figcaption { max-width: 44rem; }
a { color: inherit; text-decoration-color: var(--muted); }
code { font-size: .85em; overflow-wrap: anywhere; }
.muted, figcaption span, .quartiles { color: var(--muted); font-size: .85rem; }
dl {
  display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem;
  margin: 0; padding: 1rem; background: var(--card); border-radius: .5rem; font-size: .9rem;
}
dl + dl { margin-top: .5rem; }
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; }
.plots {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 2.5rem 3rem; align-items: start; margin-top: 1.5rem;
}
figure { margin: 0; }
figcaption { margin-bottom: .75rem; }
figcaption strong, figcaption span { display: block; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg text { font-family: system-ui, sans-serif !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .35rem .75rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--track); }
th { font-weight: 600; }
thead th { color: var(--muted); font-weight: 400; vertical-align: bottom; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--page); }
td .quartiles { display: block; }
summary { cursor: pointer; color: var(--muted); font-size: .85rem; margin-top: .5rem; }
.swatch { display: inline-block; width: .7em; height: .7em; margin-right: .5em; border-radius: 2px; }
ul { margin: .5rem 0; padding-left: 1.25rem; }
@media (max-width: 30rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
  th:first-child { white-space: normal; min-width: 9.5rem; }
}
"""
"""One column of plots on a phone, two on a wide screen; light or dark as the system is set."""


def page(title: str, *content: object) -> str:
    """Return a complete page, with its title as a heading above the content."""
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(_STYLE)),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", tag("h1", title), *content)}</html>\n'


def facts(values: Mapping[str, object]) -> Markup:
    """Return a definition list: each name with its value beside it."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in values.items()))


def table(label: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table that scrolls sideways; the first cell of each row is its heading, `label` names the table."""
    head = tag("thead", tag("tr", *(tag("th", heading, scope="col") for heading in headings)))
    body = [tag("tr", tag("th", name, scope="row"), *(tag("td", cell) for cell in cells)) for name, *cells in rows]
    element = tag("table", head, tag("tbody", *body))
    return tag("div", element, class_="scroll", role="region", aria_label=label, tabindex=0)
