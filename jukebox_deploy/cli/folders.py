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

    The old folder is removed when the body has ended well, and put back when it has not, or by the next call for
    `out` when this one was killed. Raises `JukeboxError` if `out` is not a folder that this program made, or
    holds one of the inputs.
    """
    aside = _tidied_up(out, is_ours)
    if not force or _is_free(out):
        yield
        return
    if not is_ours(out):
        raise JukeboxError(f"{out}: --force replaces only what this command made; choose another folder.")
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise JukeboxError(f"{out}: holds the input {path}; choose another folder.")
    out.rename(aside)
    try:
        yield
    except BaseException:
        aside.rename(out)
        raise
    shutil.rmtree(aside)


def _tidied_up(out: Path, is_ours: Callable[[Path], bool]) -> Path:
    """Where `out` can be moved to, after what a killed process has left there is back in its place or removed."""
    aside = out.parent / f".old-{out.name}"
    if aside.is_dir() and is_ours(aside):
        if _is_free(out):
            aside.rename(out)
        else:
            shutil.rmtree(aside)
    # Something of another kind stays: it may be somebody's own.
    return aside.with_name(f"{aside.name}-{secrets.token_hex(4)}") if aside.exists() else aside


def _is_free(out: Path) -> bool:
    return not out.exists() or (out.is_dir() and not any(out.iterdir()))
