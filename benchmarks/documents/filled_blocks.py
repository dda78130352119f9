"""Blocks of Markdown between two marker comments that a program fills, so that no number is copied by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.benchmarks.drawing.markup import printable
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import write_text_atomic


@dataclass(frozen=True)
class Block:
    """A block of a document."""

    document: str  # path in the repository
    name: str  # in the markers
    text: Callable[[Path], str]  # what belongs there, from the repository

    @property
    def begin(self) -> str:
        """The comment before it."""
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        """The comment behind it."""
        return f"<!-- {self.name}: end -->"

    def put_into(self, document: str, text: str) -> str:
        """The document with a new block. Raises `JukeboxError` unless both markers are there, once and in order."""
        before, begin, rest = document.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end or self.begin in rest or self.end in before + after:
            raise JukeboxError(f"{self.document} must have {self.begin} and then {self.end}, once each.")
        return f"{before}{self.begin}\n{text}\n{self.end}{after}"


def fill(repository: Path, blocks: Iterable[Block], *, check: bool) -> list[str]:
    """Fill the blocks of all documents and return the documents that were stale; with `check` change nothing.

    Raises `JukeboxError` or `OSError`, with the document in the text, for one that cannot be filled.
    """
    by_document: dict[str, list[Block]] = {}
    for block in blocks:
        by_document.setdefault(block.document, []).append(block)
    return [name for name, own in by_document.items() if _fill_document(repository, name, own, check=check)]


def _fill_document(repository: Path, name: str, blocks: list[Block], *, check: bool) -> bool:
    path = repository / name
    old = new = path.read_text(encoding="utf-8")
    for block in blocks:
        try:
            new = block.put_into(new, block.text(repository))
        except JukeboxError as error:
            raise JukeboxError(f"{path}: {error}") from error
    if new != old and not check:
        write_text_atomic(path, new)
    return new != old


def escaped(text: str) -> str:
    """A text of a file as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~!])", r"\\\1", printable(text))
