"""Generated blocks in Markdown documents: the text between two marker comments, so no number is copied by hand."""

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
    """A generated block of a document."""

    document: str  # path relative to the repository
    name: str  # name in the markers
    text: Callable[[Path], str]  # generates the text, given the root folder of the repository

    @property
    def begin(self) -> str:
        """The marker before the block."""
        return f"<!-- {self.name}: begin -->"

    @property
    def end(self) -> str:
        """The marker after the block."""
        return f"<!-- {self.name}: end -->"

    def put_into(self, document: str, text: str) -> str:
        """Return the document with a new text in the block. Raises `JukeboxError` unless each marker is there once."""
        before, begin, rest = document.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end or self.begin in rest or self.end in before + after:
            raise JukeboxError(
                f"{self.document}: expected the marker {self.begin} and after it {self.end}, once each; add or remove "
                "markers."
            )
        return f"{before}{self.begin}\n{text}\n{self.end}{after}"


def fill(repository: Path, blocks: Iterable[Block], *, check: bool) -> list[str]:
    """Fill the blocks of all documents, and return the documents whose text was out of date.

    With `check`, nothing is written. Raises `JukeboxError` or `OSError`, whose message names the document, for one that
    cannot be filled; this document is then unchanged.
    """
    by_document: dict[str, list[Block]] = {}
    for block in blocks:
        by_document.setdefault(block.document, []).append(block)
    return [name for name, own in by_document.items() if _fill_document(repository, name, own, check=check)]


def _fill_document(repository: Path, name: str, blocks: list[Block], *, check: bool) -> bool:
    """Fill the blocks of one document; return whether its text was out of date."""
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
    """Return a text as Markdown that is shown literally."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~!])", r"\\\1", printable(text))
