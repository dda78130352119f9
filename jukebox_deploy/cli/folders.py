"""What `--force` does: replace a folder of ours, never anything else."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jukebox_deploy.errors import JukeboxError


@contextmanager
def replacing(out: Path, *, force: bool, is_ours: Callable[[Path], bool], inputs: Iterable[Path]) -> Iterator[None]:
    """With `force`, move the folder `out` aside while the body makes a new one.

    The old folder is removed when the body has ended well, and put back when it has not. Raises
    `JukeboxError` if `out` is not a folder that this program made, or holds one of the inputs.
    """
    if not force or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        yield
        return
    if not is_ours(out):
        raise JukeboxError(f"{out}: --force replaces only what this command made; choose another folder.")
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise JukeboxError(f"{out}: holds the input {path}; choose another folder.")
    aside = out.parent / f".old-{secrets.token_hex(4)}-{out.name}"
    out.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(out)
        raise
    shutil.rmtree(aside)
