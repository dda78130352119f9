"""The folder of one song: its settings, and its codes as far as they are sampled.

    song.json       request, model, engine and lengths; written last when a song is begun
    codes_{L}.npy   int32 `[codes so far]` of level L, replaced as a whole at every commit
    .lock           held by the process that works on the song

Codes behind the last finished window may be negative: a prior that shares its vocabulary with the
lyrics can choose a lyric token, and going on exactly where a run was killed needs the very token.
`SongStore.codes` gives them so; `read_codes` gives what the decoder and other songs may use.
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
from jukebox_deploy.runtime.song import SongLengths, SongRequest

FORMAT_VERSION = 1
_RECORD = "song.json"


@dataclass(frozen=True)
class Fingerprint:
    """What the codes came from; codes of two engines must not be mixed in one song."""

    engine: str
    checkpoint: str
    batch: str | None = None  # the song's place in what was computed together, where an engine's sums depend on that


@dataclass(frozen=True)
class SongRecord:
    """What `song.json` says."""

    model: str
    fingerprint: Fingerprint
    request: SongRequest
    lengths: SongLengths
    format: int = FORMAT_VERSION


class SongStore:
    """One song folder, locked while open: `with SongStore(folder) as store`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make the folder and lock it; `SamplingError` if another run holds it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise SamplingError(f"{self.folder} cannot be used as a song folder: {error}") from error
        try:
            _lock_file(self._lock)
        except OSError as error:
            self.close()
            raise SamplingError(
                f"{self.folder}: another run is working on this song; wait for it or stop it."
            ) from error
        remove_leftovers(self.folder, age=0.0)  # of a run that was killed: nobody else writes here
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the folder."""
        self.close()

    def close(self) -> None:
        """Let go of the folder; one in which no song was begun leaves no trace."""
        if self._lock is None:
            return
        if not self.begun:
            (self.folder / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # somebody else's files are in it
                self.folder.rmdir()
        os.close(self._lock)
        self._lock = None

    @property
    def begun(self) -> bool:
        """Whether the folder holds a song."""
        return (self.folder / _RECORD).is_file()

    def begin(self, record: SongRecord, given: Sequence[np.ndarray]) -> None:
        """Start a song with the codes that are given, level 0 first.

        `song.json` comes last, so that a run killed in between leaves no song behind.
        """
        if self.begun:
            raise SamplingError(f"{self.folder} already holds a song; resume it, or choose another folder.")
        for level, codes in enumerate(given):
            self.commit(level, codes)
        write_json_atomic(self.folder / _RECORD, config_to_dict(record))

    def resume(self, request: SongRequest, fingerprint: Fingerprint) -> SongRecord:
        """The record of the song, if it is the same request on the same engine; else `SamplingError`."""
        record = read_record(self.folder)
        differences = _differences(record.request, request) + _differences(record.fingerprint, fingerprint)
        if differences:
            raise SamplingError(
                f"{self.folder} holds another song and cannot be resumed: {'; '.join(differences)}. "
                "Ask for the same song on the same engine (where a batch is named: beside the same songs in the same "
                "order, with the same slots), or choose another folder."
            )
        return record

    def commit(self, level: int, codes: np.ndarray) -> None:
        """Replace the codes `[codes so far]` of a level, on disk when this returns."""
        with atomic_path(codes_path(self.folder, level)) as temporary, temporary.open("wb") as file:
            np.save(file, codes.astype(np.int32))

    def codes(self, level: int, lengths: SongLengths) -> np.ndarray:
        """The committed codes of a level, int64; `SamplingError` if they cannot belong to this song."""
        codes = _load_codes(codes_path(self.folder, level))
        given, total = lengths.given[level], lengths.totals[level]
        if not given <= len(codes) <= total:
            raise SamplingError(
                f"{codes_path(self.folder, level)} holds {len(codes)} codes, expected {given} to {total} as "
                "song.json says; the folder was changed, sample the song again in another one."
            )
        return codes


def codes_path(folder: Path, level: int) -> Path:
    """The file with the codes of a level."""
    return folder / f"codes_{level}.npy"


def find_songs(folder: Path) -> tuple[Path, ...]:
    """The folder if it is a song's, else the song folders in it and below, sorted; none if there are none."""
    if (folder / _RECORD).is_file():
        return (folder,)
    return tuple(sorted(path.parent for path in folder.rglob(_RECORD)))


def read_record(folder: Path) -> SongRecord:
    """Read `song.json`; `SamplingError` if it is missing, damaged or of another version."""
    if not (folder / _RECORD).is_file():
        raise SamplingError(
            f"{folder}: there is no such song folder."
            if not folder.is_dir()
            else f"{folder} is no song folder, there is no {_RECORD} in it; name a folder that `sample` made."
        )
    try:
        return read_record_file(SongRecord, folder / _RECORD, FORMAT_VERSION, SamplingError, "sample the song again")
    except RecursionError:
        raise SamplingError(f"{folder / _RECORD} is damaged: it is nested too deeply. Sample the song again.") from None


def read_codes(folder: Path, level: int, codebook_size: int) -> np.ndarray:
    """The codes `[codes so far]` of any song folder, int64, none if there are none yet.

    Lyric tokens among them become code 0 (specification section 10). Raises `SamplingError` for
    codes outside the codebook.
    """
    path = codes_path(folder, level)
    if not folder.is_dir():
        raise SamplingError(f"{folder}: there is no such song folder.")
    if not path.exists():
        return np.zeros(0, np.int64)
    codes: np.ndarray = np.maximum(_load_codes(path), 0)
    if codes.max(initial=0) >= codebook_size:
        raise SamplingError(
            f"{path} holds code {codes.max()}, but the codebook has {codebook_size}; it is of another model."
        )
    return codes


def _load_codes(path: Path) -> np.ndarray:
    try:
        codes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SamplingError(f"{path} is not a readable file of codes: {error}") from error
    if not isinstance(codes, np.ndarray) or codes.ndim != 1 or not np.issubdtype(codes.dtype, np.integer):
        raise SamplingError(f"{path} does not hold a row of integer codes.")
    return codes.astype(np.int64)


def _differences(there: Any, here: Any) -> list[str]:
    """What two dataclasses of one kind disagree about, in words."""
    return [
        f"{field.name} was {_shown(getattr(there, field.name))}, is now {_shown(getattr(here, field.name))}"
        for field in dataclasses.fields(there)
        if getattr(there, field.name) != getattr(here, field.name)
    ]


def _shown(value: Any) -> str:
    """A value as song.json has it."""
    return repr(str(value) if isinstance(value, StrEnum) else value)


def _lock_file(descriptor: int) -> None:
    """Lock without waiting; the system frees the lock when the process ends, however it ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
