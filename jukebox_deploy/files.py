"""Files that appear whole or not at all: write beside, fsync, rename.

A run that fails or is interrupted leaves no file under the name it was asked for.
"""

from __future__ import annotations

import errno
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
from typing import Any

from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.threads import map_in_threads, usable_cores

_PARTIAL = ".partial-"  # how names of what is not finished begin
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
    partial = _reserve(path)
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
    if not is_free(path):
        raise JukeboxError(f"{path}: already there and not empty; remove it or choose another folder.")
    partial = _reserve(path, folder=True)
    try:
        with _explained(path, _NO_ROOM):
            yield partial
            for entry in [*partial.rglob("*"), partial]:
                _flush(entry)
            os.replace(partial, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def replaced_directory(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to make a folder at; put it in the place of the folder `path` if all went well.

    After any error `path` is as it was. Who is killed leaves the old folder or the new one there, or, between the
    two, the old one where `restore_directory` finds it.
    """
    path = Path(path)
    fresh = path.parent / f"{_PARTIAL}{secrets.token_hex(4)}-{path.name}"
    try:
        with _explained(path, _NO_ROOM | _NO_ENTRY):
            yield fresh
            restore_directory(path)  # so that nothing is where the old one goes
            if path.exists():
                os.replace(path, aside_of(path))
            os.replace(fresh, path)
            _flush(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        restore_directory(path)


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


def remove_leftovers(folder: Path, age: float = 3600.0) -> None:
    """Remove what killed processes had begun in a folder: what nobody has written to for `age` seconds."""
    for leftover in Path(folder).glob(f"{_PARTIAL}*"):
        try:
            newest = max(entry.lstat().st_mtime for entry in (leftover, *leftover.rglob("*")))
        except FileNotFoundError:  # finished meanwhile
            continue
        if time.time() - newest < age:
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


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


def _reserve(path: Path, *, folder: bool = False) -> Path:
    """Make an empty file or folder beside `path`, which nobody else uses."""
    partial = path.parent / f"{_PARTIAL}{secrets.token_hex(4)}-{path.name}"
    with _explained(path, _NO_ROOM | _NO_ENTRY):
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            partial.mkdir()
        else:
            partial.touch(exist_ok=False)
    return partial


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
