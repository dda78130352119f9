"""The behaviour of `--force`: replace a folder that this program made, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import followed, is_free, replaced_directory, restore_directory


@contextmanager
def replacing(out: Path, *, force: bool, is_ours: Callable[[Path], bool], inputs: Iterable[Path]) -> Iterator[Path]:
    """Yield the path at which the body makes a new folder: `out`, or with `force` one that replaces `out` at the end.

    Until the body succeeds, and if it fails or this process is killed, the old folder stays in its place; a link at
    `out` is followed. Raises `JukeboxError` if `out` is not a folder that this program made, or contains one of the
    inputs.
    """
    out = followed(out)
    restore_directory(out)
    if not force or is_free(out):
        yield out
        return
    if not is_ours(out):
        raise JukeboxError(f"{out}: --force replaces only what this command made; choose another folder.")
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise JukeboxError(f"{out}: holds the input {path}; choose another folder.")
    with replaced_directory(out) as fresh:
        yield fresh
