"""The output of the demo: headings, commands and times."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Teller:
    """Prints to a console what happens, stage by stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._stages = 0
        self._program = program()

    @contextmanager
    def stage(self, title: str, *command: object) -> Iterator[None]:
        """Print the heading of a stage and the command that does the same, then how long the stage took."""
        self._stages += 1
        heading(self.console, f"{self._stages}. {title}")
        if command:
            self.say_command(*command)
        begun = time.monotonic()
        yield
        self.console.print(f"{time.monotonic() - begun:.1f} s", style="green")

    def say(self, text: str) -> None:
        """Print a paragraph verbatim."""
        self.console.print(text, soft_wrap=True)

    def say_command(self, *words: object) -> None:
        """Print a command of this program, ready to be copied into a shell."""
        self.console.print(f"$ {self._program} {shlex.join(map(str, words))}", style="dim", soft_wrap=True)


def heading(console: Console, title: str) -> None:
    """Print a bold title in front of a line across the console."""
    from rich.text import Text

    console.rule(Text(title, style="bold"), align="left")


def program() -> str:
    """Return how to call this installation's command line from the current folder."""
    if shutil.which("jukebox-deploy"):
        return "jukebox-deploy"
    beside = Path(sys.executable).with_name("jukebox-deploy")
    if not beside.exists():
        return f"{sys.executable} -m jukebox_deploy.cli.main"
    here = Path.cwd()
    return str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
