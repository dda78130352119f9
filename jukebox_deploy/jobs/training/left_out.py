"""Warnings about what a training run does not use of its songs, cut short: there may be thousands."""

from __future__ import annotations

from collections.abc import Sequence

from jukebox_deploy.data.catalogue import SkippedFile
from jukebox_deploy.listing import listed

NAMED = 3
"""How many files, or warnings about labels, are named."""


def left_out_warnings(files: Sequence[SkippedFile], where: str) -> tuple[str, ...]:
    """Return a warning that names the first files left out of `where`, with the reasons; none without such files."""
    if not files:
        return ()
    count = "1 file is" if len(files) == 1 else f"{len(files)} files are"
    return (f"{count} left out of {where}: {reasons(files)}.",)


def reasons(files: Sequence[SkippedFile]) -> str:
    """Return the first files with the reasons why they are not used, and how many more there are."""
    return listed((f"{file.name} ({file.reason.rstrip('.')})" for file in files), NAMED)


def first_warnings(warnings: Sequence[str], about: str) -> tuple[str, ...]:
    """Return the first warnings, and one that says how many more there are `about` the same."""
    more = len(warnings) - NAMED
    rest = f"{more} more warning{'s' if more > 1 else ''} about {about}."
    return (*warnings[:NAMED], *([rest] if more > 0 else []))
