"""Common parts of the measuring scripts: their option parsers and the header of their result files.

A measuring script is a module of this folder that is run with `python -m` and is not a `jukebox-deploy bench` command.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.optional_packages import packages_explained

_Arguments = ParamSpec("_Arguments")


def script_parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """Return an option parser for a script; `text` is the docstring of the module, which becomes the help text."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def number_from(least: int) -> Callable[[str], int]:
    """Return a converter of an option's text to a whole number; a number below `least` is a usage error."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, found {text}")
        return int(text)

    return convert


def seconds_of(text: str) -> float:
    """Convert the text of an option to a length of time; anything but a number above 0 is a usage error."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
    return seconds


def in_sentences(main: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Return the main function of a script, changed so that an expected error exits with 1 and its sentence."""

    @functools.wraps(main)
    def run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            with packages_explained():
                main(*args, **kwargs)
        except (JukeboxError, OSError) as error:
            sys.exit(str(error))

    return run


def result_file(name: str) -> Path:
    """Return the default path of a result file: in `benchmarks/results`, with today's date."""
    return Path(__file__).parent / "results" / f"{name}-{_today()}.json"


def new_record(module: str, words: Sequence[str], results: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """Return the contents of a result file: date, command, machine and results.

    `words`: the arguments of the command; `results`: also to be filled later.
    """
    from jukebox_deploy.benchmarks.machine import describe_this_machine  # late, because `load_times` times imports

    return {
        "date": _today(),
        "command": shlex.join(["python", "-m", module, *words]),
        "machine": describe_this_machine().to_json(),
        "results": results,
    }


def _today() -> str:
    return datetime.date.today().isoformat()
