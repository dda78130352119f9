"""What several commands share: how options are read and grouped, and how a report is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from jukebox_deploy.files import write_json_atomic

_Command = TypeVar("_Command", bound=Callable[..., Any])
Decorator = Callable[[_Command], _Command]

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


def comma_separated(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A click callback: `a, b` -> `("a", "b")`; nothing given, nothing in it."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if value else ()


_LARGEST = 1e15


class UsualFloat(click.FloatRange):
    """A number in a range, and never one that no memory and no distance has: nan, inf, 1e300."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click does, and refuse what cannot be counted with."""
        number = float(super().convert(value, param, ctx))
        if not abs(number) <= _LARGEST:  # so that nan does not pass
            self.fail(f"{value} is no usual number.", param, ctx)
        return number


def grouped(*options: Decorator[_Command]) -> Decorator[_Command]:
    """Several options as one decorator; help shows them in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


report_options = grouped(
    click.option("--out", type=FILE, help="Write the report to this JSON file."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)
"""Where a report goes, for `give_report`."""

song_options = grouped(
    click.option("--data", required=True, type=PATH, metavar="DIR", help="Folder of songs, see `data check`."),
    click.option("--metadata", type=PATH, metavar="FILE", help="Table of the songs, if it is not in their folder."),
)
"""The songs that a model learns or is judged by."""

metadata_option = click.option(
    "--metadata",
    type=PATH,
    metavar="FILE",
    help="Table of the songs. [default: metadata.jsonl or metadata.csv in DIR]",
)
"""The same for commands whose argument DIR is the folder."""


threads_option = click.option("--threads", type=click.IntRange(1), help="Of the CPU. [default: as many as pay]")
"""Fewer leave cores to other work: threads of two busy processes wait for each other longer than they compute."""


def give_report(document: Mapping[str, Any], out: Path | None, as_json: bool, show: Callable[[], None]) -> None:
    """Write a report to a file if one is named, and print it as JSON or let `show` print it for people."""
    if out is not None:
        write_json_atomic(out, document)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        show()
