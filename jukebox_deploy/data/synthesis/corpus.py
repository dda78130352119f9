"""Synthesis of a whole corpus: songs, in several processes, the table of songs, lists of names, and hashes.

The folder contains `audio/NNNN.flac`, `scores/NNNN.json`, `metadata.jsonl` with one song per line, the lists of artists
and genres in the layout that `jukebox-deploy import --vocabulary` reads, and `corpus.json`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from jukebox_deploy.config import LabelRules
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.outline import outline
from jukebox_deploy.data.synthesis.song_files import CorpusIdentity, SongFiles, finished_song, make_song
from jukebox_deploy.errors import ConfigError, JukeboxError
from jukebox_deploy.files import atomic_path, sha256_of_file, write_json_atomic
from jukebox_deploy.labels.vocabulary import canonical
from jukebox_deploy.processes import map_in_processes
from jukebox_deploy.threads import usable_cores

CORPUS_NAME, TABLE_NAME = "corpus.json", "metadata.jsonl"
_UNKNOWN = "unknown"
_PARTIAL = ".partial-*"
"""Unfinished files of `atomic_path`."""


@dataclass(frozen=True)
class CorpusRequest:
    """Request for a corpus; raises `ConfigError` for invalid limits.

    If both `hours` and `songs` are given, the limit that is reached first applies.
    """

    folder: Path
    identity: CorpusIdentity = field(default_factory=CorpusIdentity)
    hours: float | None = None  # minimum duration of all songs together
    songs: int | None = None
    processes: int | None = None  # default: one per usable core

    def __post_init__(self) -> None:
        if self.hours is None and self.songs is None:
            raise ConfigError("a corpus needs a size: give hours, or a number of songs.")
        if self.hours is not None and not (self.hours > 0 and math.isfinite(self.hours)):
            raise ConfigError(f"hours: expected a number above 0, found {self.hours:g}.")
        for name, number in (("songs", self.songs), ("processes", self.processes)):
            if number is not None and number < 1:
                raise ConfigError(f"{name}: expected 1 or more, found {number}.")

    def song_lengths(self) -> list[float]:
        """Return the seconds of each song of the corpus."""
        limit = math.inf if self.hours is None else self.hours * 3600
        lengths: list[float] = []
        total = 0.0
        for number in count() if self.songs is None else range(self.songs):
            if total >= limit:
                break
            lengths.append(outline(self.identity.seed, number, self.identity.grid).seconds)
            total += lengths[-1]
        return lengths


@dataclass(frozen=True)
class SongDone:
    """Event for a listener: a song is finished."""

    song: SongFiles
    made: bool  # whether this run made it
    total_seconds: float  # of all songs of the corpus


Listener = Callable[[SongDone], None]


@dataclass(frozen=True)
class CorpusSummary:
    """Songs that the folder contains, and the number of those that this run made."""

    folder: Path
    songs: tuple[SongFiles, ...]
    made: int

    @property
    def seconds(self) -> float:
        """Total duration of all songs."""
        return sum(song.seconds for song in self.songs)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data."""
        return {"corpus": str(self.folder), "songs": len(self.songs), "made": self.made, "seconds": self.seconds}


def synthesize_corpus(request: CorpusRequest, listen: Listener = lambda event: None) -> CorpusSummary:
    """Make the songs that are missing in the folder, and then all tables.

    Songs that an earlier run finished are kept, so an interrupted run can be continued, and a larger limit extends the
    corpus. With a smaller limit, the tables list fewer songs, but no file is removed.

    Raises:
        ModuleNotFoundError: without SciPy, before the folder is made.
        JukeboxError: for a folder that contains other files or songs of another identity, and for files that cannot
            be written.
    """
    import scipy  # noqa: F401  # the sounds need it, and without it no folder shall be begun

    _claim(request.folder, request.identity)
    lengths = request.song_lengths()
    songs: dict[int, SongFiles] = {}
    made = 0
    for song, is_new in _all_songs(request, len(lengths)):
        songs[song.number] = song
        made += is_new
        listen(SongDone(song, is_new, sum(lengths)))
    ordered = tuple(songs[number] for number in range(len(lengths)))
    _write_tables(request, ordered)
    return CorpusSummary(request.folder, ordered, made)


def _all_songs(request: CorpusRequest, total: int) -> Iterator[tuple[SongFiles, bool]]:
    """Yield first the songs that exist, then those that this run makes."""
    missing = []
    for number in range(total):
        if song := finished_song(request.folder, request.identity, number):
            yield song, False
        else:
            missing.append((request.folder, request.identity, number))
    processes = min(request.processes or usable_cores(), max(len(missing), 1))
    for song in map_in_processes(make_song, missing, processes):
        yield song, True


def _claim(folder: Path, identity: CorpusIdentity) -> None:
    """Check that the folder is new, empty or a corpus of this identity, and record the identity in it."""
    if folder.exists() and not folder.is_dir():
        raise JukeboxError(f"{folder}: is a file, and a corpus is a folder; choose another place.")
    path = folder / CORPUS_NAME
    if path.is_file():
        _check_identity(path, identity)
    elif folder.exists() and any(not entry.match(_PARTIAL) for entry in folder.iterdir()):
        raise JukeboxError(f"{folder}: has other things in it and no {CORPUS_NAME}; choose a new or empty folder.")
    else:
        write_json_atomic(path, {"identity": identity.to_json(), "complete": False})
    for leftover in folder.rglob(_PARTIAL):  # left by a killed run
        leftover.unlink(missing_ok=True)


def _check_identity(path: Path, identity: CorpusIdentity) -> None:
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
    except (ValueError, TypeError, KeyError) as error:
        raise JukeboxError(f"{path}: not the description of a corpus ({error!r}); choose another folder.") from error
    for name, wanted in identity.to_json().items():
        if found.get(name) != wanted:
            raise JukeboxError(
                f"{path.parent}: its songs have {name.replace('_', ' ')} {found.get(name)}, but {wanted} was "
                "requested; choose another folder."
            )


def _write_tables(request: CorpusRequest, songs: tuple[SongFiles, ...]) -> None:
    folder = request.folder
    _write_lines(folder / TABLE_NAME, (json.dumps(song.row) for song in songs))
    lists = list(_write_names(folder))
    tables = {name: sha256_of_file(folder / name) for name in [TABLE_NAME, *lists]}
    scores = {song.row["score"]: sha256_of_file(folder / song.row["score"]) for song in songs}
    sounds = {song.row["file"]: song.sha256 for song in songs}
    document = {
        "identity": request.identity.to_json(),
        "complete": True,
        "songs": len(songs),
        "seconds": sum(song.seconds for song in songs),
        "artists": Counter(song.row["artist"] for song in songs),
        "genres": Counter(genre for song in songs for genre in song.row["genres"]),
        "sha256": {**tables, **sounds, **scores},
    }
    write_json_atomic(folder / CORPUS_NAME, document)


def _write_names(folder: Path) -> Iterator[str]:
    """Write files of `name;id` lines for both rule sets, where id 0 is "unknown"; yield the names of the files."""
    for rules in LabelRules:
        for kind, names in (("artist", ARTISTS), ("genre", GENRES)):
            file = f"{rules.value}_{kind}_ids.txt"
            listed = [_UNKNOWN, *(canonical(name, rules) for name in names)]
            _write_lines(folder / file, (f"{name};{number}" for number, name in enumerate(listed)))
            yield file


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
