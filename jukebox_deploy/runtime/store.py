"""Folder of one song: its request and its codes so far.

    song.json       request, model, engine and lengths; written last when a song is begun
    codes_{L}.npy   int32 `[codes so far]` of level L, replaced as a whole at every commit
    .lock           locked by the process that works on the song

Codes after the last finished window may be negative: a prior that shares its vocabulary with the lyrics can sample a
lyric token, and resuming exactly where a run was killed needs that very token. `SongStore.codes` returns these codes
unchanged; `read_codes` replaces them, for the decoder and for songs that continue this one.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from jukebox_deploy.config_json import config_to_dict, read_record_file
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.files import atomic_path, remove_leftovers, write_json_atomic
from jukebox_deploy.runtime.song import LevelSettings, SongLengths, SongRequest

FORMAT_VERSION = 1
_RECORD = "song.json"
_WINDOWS = os.name == "nt"


@dataclass(frozen=True)
class Fingerprint:
    """Identity of the engine that sampled the codes; codes of two engines must not be mixed in one song."""

    engine: str
    checkpoint: str
    batch: str | None = None  # the song's place in its batch; None if the engine is batch-invariant


@dataclass(frozen=True)
class SongRecord:
    """Contents of `song.json`."""

    model: str
    fingerprint: Fingerprint
    request: SongRequest
    lengths: SongLengths
    format: int = FORMAT_VERSION


class SongStore:
    """A song folder that is locked while open: `with SongStore(folder) as store`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Create the folder and lock it; raise `SamplingError` if another run holds the lock."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise SamplingError(f"{self.folder} cannot be used as a song folder: {error}") from error
        try:
            _lock_file(self._lock)
        except OSError as error:
            os.close(self._lock)  # the lock is the other run's, so it stays
            self._lock = None
            raise SamplingError(
                f"{self.folder}: another run is working on this song; wait for it to end or stop it."
            ) from error
        remove_leftovers(self.folder, age=0.0)  # left by a killed run: with the lock held, nobody else writes here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock the folder, and remove it if no song was begun in it and it is empty."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        if _WINDOWS:  # it removes no file that is open
            os.close(lock)
        if not holds_song(self.folder):
            with suppress(OSError):  # the folder contains other files, or another run has opened the lock meanwhile
                (self.folder / ".lock").unlink(missing_ok=True)
                self.folder.rmdir()
        if not _WINDOWS:  # only now, so that no other run locks a file that is then removed
            os.close(lock)

    def begin(self, record: SongRecord, given: Sequence[np.ndarray]) -> None:
        """Begin a song with the given codes, level 0 first.

        `song.json` is written last, so that a run killed in between leaves no song behind.
        """
        if holds_song(self.folder):
            raise SamplingError(f"{self.folder} already holds a song; resume it, or choose another folder.")
        for level, codes in enumerate(given):
            self.commit(level, codes)
        write_json_atomic(self.folder / _RECORD, config_to_dict(record))

    def resume(self, request: SongRequest, fingerprint: Fingerprint) -> SongRecord:
        """Return the record of the song; raise `SamplingError` unless request and fingerprint are the recorded ones."""
        record = read_record(self.folder)
        differences = _differences(record.request, request) + _differences(record.fingerprint, fingerprint)
        if differences:
            raise SamplingError(
                f"{self.folder} holds another song and cannot be resumed: {'; '.join(differences)}. "
                "Request the same song on the same engine (if the batch differs: together with the same songs in the "
                "same order, with the same slots), or choose another folder."
            )
        return record

    def commit(self, level: int, codes: np.ndarray) -> None:
        """Replace the codes `[codes so far]` of a level; they are on disk when this returns."""
        with atomic_path(codes_path(self.folder, level)) as temporary, temporary.open("wb") as file:
            np.save(file, codes.astype(np.int32))

    def codes(self, level: int, lengths: SongLengths) -> np.ndarray:
        """Read the committed codes of a level, int64; raise `SamplingError` if their number does not fit the song."""
        codes = _load_codes(codes_path(self.folder, level))
        given, total = lengths.given[level], lengths.totals[level]
        if not given <= len(codes) <= total:
            raise SamplingError(
                f"{codes_path(self.folder, level)} holds {len(codes)} codes, expected {given} to {total} according to "
                "song.json; the folder was changed, so sample the song again in another folder."
            )
        return codes


def codes_path(folder: Path, level: int) -> Path:
    """Return the path of the codes of a level."""
    return folder / f"codes_{level}.npy"


def holds_song(folder: Path) -> bool:
    """Return whether a song was begun in a folder."""
    return (folder / _RECORD).is_file()


def find_songs(folder: Path) -> tuple[Path, ...]:
    """Return the folder if it is a song folder, else all song folders below it, sorted; empty if there are none."""
    if holds_song(folder):
        return (folder,)
    return tuple(sorted(path.parent for path in folder.rglob(_RECORD)))


def read_record(folder: Path) -> SongRecord:
    """Read `song.json`; raise `SamplingError` if it is missing, damaged or of another format version."""
    if not holds_song(folder):
        raise SamplingError(
            f"{folder}: there is no such song folder."
            if not folder.is_dir()
            else f"{folder} is not a song folder: it contains no {_RECORD}; give a folder that `sample` made."
        )
    try:
        return read_record_file(SongRecord, folder / _RECORD, FORMAT_VERSION, SamplingError, "sample the song again")
    except RecursionError:
        raise SamplingError(f"{folder / _RECORD} is damaged: it is nested too deeply. Sample the song again.") from None


def read_codes(folder: Path, level: int, codebook_size: int) -> np.ndarray:
    """Read the codes `[codes so far]` of a level of any song folder, int64; empty if the level was not begun.

    Lyric tokens among them become code 0 (specification section 10). Raises `SamplingError` for codes outside the
    codebook.
    """
    path = codes_path(folder, level)
    if not folder.is_dir():
        raise SamplingError(f"{folder}: there is no such song folder.")
    if not path.exists():
        return np.zeros(0, np.int64)
    codes: np.ndarray = np.maximum(_load_codes(path), 0)
    if codes.max(initial=0) >= codebook_size:
        raise SamplingError(
            f"{path} holds code {codes.max()}, but the codebook of this model has {codebook_size} codes; the file "
            "belongs to another model, use the bundle that made it."
        )
    return codes


def _load_codes(path: Path) -> np.ndarray:
    try:
        codes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SamplingError(f"{path} is not a readable .npy file of codes: {error}") from error
    if not isinstance(codes, np.ndarray) or codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise SamplingError(f"{path} does not hold codes: expected a one-dimensional array of integers.")
    return codes.astype(np.int64)


def _differences(there: Any, here: Any) -> list[str]:
    """Describe the fields in which two instances of one dataclass differ."""
    found: list[str] = []
    for field in dataclasses.fields(there):
        was, now = getattr(there, field.name), getattr(here, field.name)
        if was == now:
            continue
        if field.name == "levels":
            found += _level_differences(was, now)
        else:
            found.append(f"{field.name} was {_shown(was)}, is now {_shown(now)}")
    return found


def _level_differences(there: Sequence[LevelSettings], here: Sequence[LevelSettings]) -> list[str]:
    """Describe the settings of levels that differ, or how many levels have some."""
    if len(there) != len(here):
        return [f"settings were given for {len(there)} levels, are now for {len(here)}"]
    pairs = enumerate(zip(there, here, strict=True))
    return [f"{told} at level {level}" for level, (was, now) in pairs for told in _differences(was, now)]


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return repr(str(value) if isinstance(value, StrEnum) else value)


def _lock_file(descriptor: int) -> None:
    """Lock a file without waiting; the operating system releases the lock when the process ends, even if killed."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
