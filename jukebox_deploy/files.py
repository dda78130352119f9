"""Files that appear whole or not at all: write beside, fsync, rename.

A run that fails or is interrupted leaves no file under the name it was asked for. One that is killed leaves hidden
folders beside it, which the next run for the same name removes: each has a lock that ends with its process.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.threads import map_in_threads, usable_cores

try:
    import fcntl
except ImportError:  # Windows has no such locks: there age alone decides
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial-"  # how names of what is not finished begin
_LOCK = "lock"  # in a scratch folder; held for as long as its process lives
_WHOLE = "whole"  # in a scratch folder: what is renamed when it is finished
_HOUR, _DAY = 3600.0, 86400.0
_HASH_BLOCK = 2**20  # bytes that are hashed while they are in a core's cache
_NO_ROOM = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would be larger than this system allows; choose another place",
}
_NO_ENTRY = {
    errno.EACCES: "permission denied; choose another place",
    errno.EPERM: "permission denied; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EEXIST: "a part of this path is a file, not a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path beside `path`, with its suffix, to write to; rename it to `path` if all went well.

    Missing parent folders are made. Raises `JukeboxError` where there is no room or no permission;
    any other error of the body passes. In both cases `path` stays as it was.
    """
    path = Path(path)
    partial = path.parent / _partial_name(path)
    with _explained(path, _NO_ROOM | _NO_ENTRY):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(exist_ok=False)
    try:
        with _explained(path, _NO_ROOM):
            yield partial
            _flush(partial)
            os.replace(partial, path)
            _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to fill; rename it to `path` if all went well.

    Raises `JukeboxError` if `path` is a file or a folder with something in it, and where there is no
    room or no permission. After any error `path` is as it was.
    """
    path = Path(path)
    require_free(path)
    with scratch_folder(path) as scratch, _explained(path, _NO_ROOM):
        partial = scratch / _WHOLE
        partial.mkdir()
        yield partial
        for entry in [*partial.rglob("*"), partial]:
            _flush(entry)
        os.replace(partial, path)
        _flush(path.parent)


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Give a path to make a folder at; put it in the place of the folder `path` if all went well.

    After any error `path` is as it was. Who is killed leaves the old folder or the new one there, or, between the
    two, the old one where `restore_directory` finds it.
    """
    path = Path(path)
    try:
        with scratch_folder(path) as scratch, _explained(path, _NO_ROOM | _NO_ENTRY):
            fresh = scratch / _WHOLE
            yield fresh
            restore_directory(path)  # so that nothing is where the old one goes
            if path.exists():
                os.replace(path, aside_of(path))
            os.replace(fresh, path)
            _flush(path.parent)
    finally:
        restore_directory(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Give a new hidden folder beside `path`, for what is needed until `path` is there; it is gone afterwards.

    Missing parent folders are made. First goes what killed processes left of such folders for the same `path`;
    those of living ones stay. Raises `JukeboxError` where there is no room or no permission.
    """
    path = Path(path)
    folder, lock = path.parent / _partial_name(path), None
    try:
        with _explained(path, _NO_ROOM | _NO_ENTRY):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, _DAY, of=path.name)
            folder.mkdir()
            lock = _lock(folder)
        yield folder
    finally:
        if lock is not None:
            lock.close()  # first, for NFS keeps a file that is open
        shutil.rmtree(folder, ignore_errors=True)


def restore_directory(path: Path) -> None:
    """Have the folder there that was moved to `aside_of(path)`, unless another has taken its place; then remove it."""
    aside = aside_of(path)
    if aside.exists() and is_free(path):
        os.replace(aside, path)
    shutil.rmtree(aside, ignore_errors=True)


def aside_of(path: Path) -> Path:
    """Where a folder is while another takes its place."""
    return path.parent / f".replaced-{path.name}"


def is_free(path: Path) -> bool:
    """Whether there is nothing, or an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def require_free(path: Path) -> None:
    """Raise `JukeboxError` unless a new folder can take this place."""
    if not is_free(path):
        raise JukeboxError(f"{path}: already there and not empty; remove it or choose another folder.")


def remove_leftovers(folder: Path, age: float = _HOUR, of: str | None = None) -> None:
    """Remove what killed processes had begun in a folder: all of it, or what was to become the file or folder `of`.

    What has a lock goes if its process is gone; anything else if nobody has written to it for `age` seconds.
    """
    pattern = "*" if of is None else f"{'[0-9a-f]' * 8}-{glob.escape(of)}"  # see `_partial_name`
    for leftover in Path(folder).glob(_PARTIAL + pattern):
        if not _is_left(leftover, age):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_left(leftover: Path, age: float) -> bool:
    """Whether nobody works on it any more."""
    try:
        with (leftover / _LOCK).open("r+b") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    except (FileNotFoundError, NotADirectoryError):  # a file, or made where there are no locks
        pass
    except OSError:  # held, or of somebody else
        return False
    try:
        newest = max(entry.lstat().st_mtime for entry in (leftover, *leftover.rglob("*")))
    except FileNotFoundError:  # finished meanwhile
        return False
    return time.time() - newest >= age


def _lock(folder: Path) -> BinaryIO | None:
    """Show others that this process lives, until the file is closed; `None` where the system has no such locks.

    A number of a process would not do: numbers are used again, and those of containers and other machines mean
    nothing here.
    """
    if fcntl is None:
        return None
    fresh = folder / f"{_LOCK}.new"
    lock = fresh.open("xb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        fresh.unlink()
        return None
    fresh.rename(folder / _LOCK)  # only now: a lock that nobody holds is a sign of death
    return lock


def write_json_atomic(path: Path, data: Any) -> None:
    """Write plain data as indented JSON (UTF-8), whole or not at all. `ValueError` for NaN."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_pieces(path: Path, piece: int) -> tuple[str, ...]:
    """The SHA-256 of every `piece` bytes of a file, and of what is left at its end; worked out on all usable cores."""

    def digest(start: int) -> str:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start)
            return _sha256_of(file, piece)

    starts = range(0, Path(path).stat().st_size, piece)
    threads = usable_cores()
    return tuple(map_in_threads(digest, starts, threads=threads, ahead=threads))


def _sha256_of(file: FileIO, length: int) -> str:
    """Of so many bytes from where the file stands, or of as many as there are."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_HASH_BLOCK))
    while length and (read := file.readinto(block[: min(length, len(block))])):
        digest.update(block[:read])
        length -= read
    return digest.hexdigest()


def _partial_name(path: Path) -> str:
    """A name that nobody else uses."""
    return f"{_PARTIAL}{secrets.token_hex(4)}-{path.name}"


@contextmanager
def _explained(path: Path, reasons: dict[int, str]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise JukeboxError(f"{path}: could not be written: {reasons[error.errno]}.") from error


def _flush(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
