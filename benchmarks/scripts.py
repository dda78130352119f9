"""What the measuring scripts share: how they read their options, and how their result files begin.

They are those modules of this folder that `python -m` runs and `jukebox-deploy bench` does not have.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def script_parser(module: str, text: str | None) -> argparse.ArgumentParser:
    """A parser whose help is the text of the module."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def result_file(name: str) -> Path:
    """Where a result of today goes if no other file is named."""
    return Path(__file__).parent / "results" / f"{name}-{_today()}.json"


def new_record(module: str, words: Sequence[str], results: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """A result file as plain data: the day, the command with its words, the machine, and the results."""
    from jukebox_deploy.benchmarks.machine import describe_this_machine  # here, for `load_times` measures imports

    return {
        "date": _today(),
        "command": shlex.join(["python", "-m", module, *words]),
        "machine": describe_this_machine().to_json(),
        "results": results,
    }


def _today() -> str:
    return datetime.date.today().isoformat()
