"""Atomic writing of files and folders: write to a temporary path in the same folder, fsync, rename.

A run that fails or is interrupted leaves nothing under the requested name. A run that is killed leaves a hidden file or
folder beside it. A leftover folder is removed by the next run for the same name, which recognizes it by its lock: the
lock ends with its process.
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
except ImportError:  # Windows has no such locks; there, leftovers are recognized by their age alone
    fcntl = None  # type: ignore[assignment]

_WINDOWS = os.name == "nt"
_PARTIAL = ".partial-"  # prefix of the names of unfinished files and folders
_LOCK = "lock"  # file in a scratch folder, locked as long as its process lives
_WHOLE = "whole"  # folder in a scratch folder that is renamed when it is complete
_HOUR, _DAY = 3600.0, 86400.0
_HASH_BLOCK = 2**20  # bytes read at once for hashing, few enough for a core's cache
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
_NO_PLACE = _NO_ROOM | _NO_ENTRY | {errno.ENOENT: "nothing can be created there; choose another place"}
_TAKEN = dict.fromkeys(
    (errno.ENOTEMPTY, errno.EEXIST), "something else was put there in the meantime; remove it or choose another folder"
)


class _UnwritableError(JukeboxError):
    """A file or folder that could not be written, and the reason that the system gave."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # from which the error is made again after it has crossed to another process
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: could not be written: {self.reason}."


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; rename it to `path` if the block succeeds.

    Missing parent folders are created. Raises `JukeboxError` if there is no disk space or no permission; any other
    error of the block propagates. In both cases `path` stays as it was.
    """
    path = Path(path)
    partial = path.parent / _partial_name(path)
    with _explained(path, _NO_PLACE):
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
    """Yield a new folder beside `path`, or beside what a link at `path` points to; rename it if the block succeeds.

    Raises `JukeboxError` if `path` is a file or a non-empty folder, and if there is no disk space or no permission.
    After any error `path` is as it was.
    """
    path = followed(Path(path))
    require_free(path)
    with scratch_folder(path) as scratch, _explained(path, _NO_ROOM):
        partial = scratch / _WHOLE
        partial.mkdir()
        yield partial
        for entry in [*partial.rglob("*"), partial]:
            _flush(entry)
        with _explained(path, _TAKEN):
            os.replace(partial, path)
        _flush(path.parent)


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Yield a path at which the block creates a folder; replace the folder `path` by it if the block succeeds.

    After any error `path` is as it was. If the process is killed, `path` is the old folder or the new one; in the
    moment between the two renames it is missing, and `restore_directory` restores the old one.
    """
    path = followed(Path(path))
    try:
        with scratch_folder(path) as scratch, _explained(path, _NO_ROOM | _NO_ENTRY):
            fresh = scratch / _WHOLE
            yield fresh
            restore_directory(path)  # frees `_aside_of(path)`, which the old folder is moved to
            if path.exists():
                os.replace(path, _aside_of(path))
            os.replace(fresh, path)
            _flush(path.parent)
    finally:
        restore_directory(path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `path` for temporary files; remove it at the end.

    Missing parent folders are created. Scratch folders that killed processes left for the same `path` are removed
    first; those of running processes stay. Raises `JukeboxError` if there is no disk space or no permission.
    """
    path = Path(path)
    folder, lock = path.parent / _partial_name(path), None
    try:
        with _explained(path, _NO_PLACE):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent, _DAY, of=path.name)
            folder.mkdir()
            lock = _lock(folder)
        yield folder
    finally:
        if lock is not None:
            lock.close()  # before the removal, because NFS keeps files that are open
        shutil.rmtree(folder, ignore_errors=True)


def restore_directory(path: Path) -> None:
    """Move the folder at `_aside_of(path)`, if there is one, back to `path`; remove it if `path` is taken."""
    aside = _aside_of(path)
    if aside.exists() and is_free(path):
        os.replace(aside, path)
    shutil.rmtree(aside, ignore_errors=True)


def _aside_of(path: Path) -> Path:
    """Return the path that a folder is moved to while another one replaces it."""
    return path.parent / f".replaced-{path.name}"


def followed(path: Path) -> Path:
    """Return what a link points to: a folder can be renamed to the place of an empty folder, but not of a link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def is_free(path: Path) -> bool:
    """Return whether there is nothing at `path`, or only an empty folder."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def require_free(path: Path) -> None:
    """Raise `JukeboxError` unless a new folder can be created at `path`."""
    if not is_free(path):
        raise JukeboxError(f"{path}: already there and not empty; remove it or choose another folder.")


def remove_leftovers(folder: Path, age: float = _HOUR, of: str | None = None) -> None:
    """Remove the unfinished files and folders that killed processes left in `folder`.

    With `of`, only those that were to become the file or folder of that name. A leftover with a lock is removed if its
    process has ended, any other if nothing has written to it for `age` seconds.
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
    """Return whether no process is working on an unfinished file or folder any more."""
    try:
        with (leftover / _LOCK).open("r+b") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
    except (FileNotFoundError, NotADirectoryError):  # a file, or a folder from a system without locks
        pass
    except OSError:  # the lock is held, or belongs to another user
        return False
    try:
        newest = max(entry.lstat().st_mtime for entry in (leftover, *leftover.rglob("*")))
    except FileNotFoundError:  # renamed or removed in the meantime
        return False
    return time.time() - newest >= age


def _lock(folder: Path) -> BinaryIO | None:
    """Lock a scratch folder as long as the returned file is open; return `None` if the system has no such locks.

    A process id would not do: ids are reused, and those of containers and other machines mean nothing here.
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
    fresh.rename(folder / _LOCK)  # only once it is locked: others take an unlocked file for that of an ended process
    return lock


def write_json_atomic(path: Path, data: Any) -> None:
    """Write plain data as indented JSON (UTF-8) atomically; raise `ValueError` for NaN and infinity."""
    write_text_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text_atomic(path: Path, text: str) -> None:
    """Write a text (UTF-8) atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_pieces(path: Path, piece: int) -> tuple[str, ...]:
    """Return the SHA-256 of each piece of `piece` bytes of a file (the last may be shorter), using all usable cores."""

    def digest(start: int) -> str:
        with Path(path).open("rb", buffering=0) as file:
            file.seek(start)
            return _sha256_of(file, piece)

    starts = range(0, Path(path).stat().st_size, piece)
    threads = usable_cores()
    return tuple(map_in_threads(digest, starts, threads=threads, ahead=threads))


def _sha256_of(file: FileIO, length: int) -> str:
    """Return the SHA-256 of the next `length` bytes of an open file, or of the rest if it is shorter."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_HASH_BLOCK))
    while length and (read := file.readinto(block[: min(length, len(block))])):
        digest.update(block[:read])
        length -= read
    return digest.hexdigest()


def _partial_name(path: Path) -> str:
    """Return a unique name for an unfinished file or folder."""
    return f"{_PARTIAL}{secrets.token_hex(4)}-{path.name}"


@contextmanager
def _explained(path: Path, reasons: dict[int, str]) -> Iterator[None]:
    """Name `path` in errors with these numbers, also where a hidden file or folder for it could not be written."""
    try:
        yield
    except _UnwritableError as error:
        if not any(part.startswith(_PARTIAL) for part in error.path.parts):
            raise
        raise _UnwritableError(path, error.reason) from error
    except OSError as error:
        if error.errno not in reasons:
            raise
        raise _UnwritableError(path, reasons[error.errno]) from error


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk; Windows opens no folders, and flushes only for writers."""
    if _WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
