"""The behaviour of `--force`: replace a folder that this program made, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import aside_of, followed, is_free, restore_directory


@contextmanager
def replacing(out: Path, *, force: bool, is_ours: Callable[[Path], bool], inputs: Iterable[Path]) -> Iterator[None]:
    """With `force`, move the folder `out`, or what a link at `out` points to, aside while the body makes a new one.

    The old folder is removed if the body succeeds and restored if it fails; if this process is killed, the next call
    for `out` restores it. Raises `JukeboxError` if `out` is not a folder that this program made, or contains one of
    the inputs.
    """
    out = followed(out)
    restore_directory(out)
    if not force or is_free(out):
        yield
        return
    if not is_ours(out):
        raise JukeboxError(f"{out}: --force replaces only what this command made; choose another folder.")
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise JukeboxError(f"{out}: holds the input {path}; choose another folder.")
    os.replace(out, aside_of(out))
    try:
        yield
    finally:
        restore_directory(out)
