"""Option types, groups of options and report output that several commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from jukebox_deploy.errors import ConfigError
from jukebox_deploy.files import write_json_atomic
from jukebox_deploy.runtime.song import is_text

_Command = TypeVar("_Command", bound=Callable[..., Any])
Decorator = Callable[[_Command], _Command]

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)


class OutFolder(click.ParamType[Path]):
    """A folder to write to. An empty string, as from an unset shell variable, does not mean the current folder."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a usage error if it is empty, or not UTF-8 text that song.json and messages can hold."""
        if not str(value):
            self.fail("an empty name; give a folder.", param, ctx)
        if not is_text(str(value)):
            self.fail(f"{str(value)!r} is not text in UTF-8; give another name.", param, ctx)
        return Path(value)


class OutFile(click.Path):
    """A file to write. It is refused at once if it cannot be written, not after the work whose result it shall hold."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a usage error if it is empty or a folder, or if its folder cannot be made or written to."""
        if not str(value):
            self.fail("an empty name; give the file to write.", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            self.fail(f"{path}: {folder} is a file, not a folder.", param, ctx)
        require_writable(folder, "choose another place")
        return path


def require_writable(folder: Path, advice: str, option: str | None = None) -> None:
    """Raise a usage error unless files can be written to a folder; `advice` says what to do instead.

    `option`: the option that asks for it; not needed where click converts its value.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{folder} cannot be written to; {advice}.", param_hint=option)


def comma_separated(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split a list, as a click callback: `a, b` -> `("a", "b")`; an empty tuple if the option is not given.

    An empty list, as from an unset shell variable, does not mean the default: it is a usage error.
    """
    if value is None:
        return ()
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if not parts:
        raise click.BadParameter("an empty list; name something, or leave the option out.", context, parameter)
    return parts


def numbers_from(least: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """Return a click callback that parses a list of whole numbers, sorted and each once: `4,1,4` -> `(1, 4)`.

    Numbers below `least` and an empty list are usage errors; without the option, the tuple is empty.
    """

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
        parts = comma_separated(context, parameter, value)
        if not all(part.isdecimal() and int(part) >= least for part in parts):
            raise click.BadParameter(f"{value!r}: give numbers from {least} on, separated by commas.")
        return tuple(sorted(set(map(int, parts))))

    return parse


_LARGEST = 1e15


class UsualFloat(click.FloatRange):
    """A float in a range that rejects nan, inf and absurdly large values such as 1e300."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert as click does, then reject numbers beyond `_LARGEST`."""
        number = float(super().convert(value, param, ctx))
        if not abs(number) <= _LARGEST:  # so that nan does not pass
            self.fail(f"{value} is no usual number.", param, ctx)
        return number


SECONDS = UsualFloat(min=0, min_open=True)
"""A length of time."""

SEED = click.IntRange(0, 2**64 - 1)
"""A random seed."""


@contextmanager
def settings_from_options() -> Iterator[None]:
    """Turn a `ConfigError` into a usage error: the settings made in this block have no other values than options."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def grouped(*options: Decorator[_Command]) -> Decorator[_Command]:
    """Combine several options into one decorator; the help lists them in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


report_options = grouped(
    click.option("--out", type=OutFile(), help="Write the report to this JSON file."),
    click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
)
"""The destination of a report, for `give_report`."""

song_options = grouped(
    click.option("--data", required=True, type=PATH, metavar="DIR", help="Folder of songs; see `data check`."),
    click.option(
        "--metadata", type=PATH, metavar="FILE", help="Table of the songs, if it is not in the --data folder."
    ),
)
"""The songs that a model is trained or evaluated on."""

metadata_option = click.option(
    "--metadata",
    type=PATH,
    metavar="FILE",
    help="Table of the songs. [default: metadata.jsonl or metadata.csv in DIR]",
)
"""The table of the songs, for commands that take the folder as their argument DIR."""


threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads. [default: as many as speed it up]"
)
"""With fewer threads, cores stay free: threads of two busy processes wait for each other longer than they compute."""


def give_report(document: Mapping[str, Any], out: Path | None, as_json: bool, show: Callable[[], None]) -> None:
    """Write a report to `out`, if given, and print it: as JSON, or in readable form with `show`."""
    if out is not None:
        write_json_atomic(out, document)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        show()
