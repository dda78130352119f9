"""Catalogue of a folder of songs: the sound files with their labels, and the files that are skipped, with reasons.

Only the header and a few short stretches of each file are read, so that thousands of files take seconds. Files with
floating-point samples are read as a whole, because they can contain NaN or infinity anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.data.metadata import MetadataTable, SongMetadata, find_table, read_table, song_key
from jukebox_deploy.errors import AudioError, ConfigError, DataError
from jukebox_deploy.sound_files import open_sound, read_blocks

if TYPE_CHECKING:
    import soundfile

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_PROBES, _PROBE_SECONDS = 8, 0.25
_THREADS = 4  # reading mostly waits for the disk
_SHORTEST_SECONDS = 0.05  # less is too short for the VQ-VAE's spectral losses
_FLOATING = ("FLOAT", "DOUBLE")  # libsndfile's names of floating-point formats
_NOT_FINITE = "samples that are not finite (NaN or infinity)"


@dataclass(frozen=True)
class SongEntry:
    """A sound file and its labels; unknown labels are empty."""

    path: Path
    name: str  # path relative to the folder, with `/`
    artist: str
    genres: tuple[str, ...]
    lyrics: str
    sample_rate: int
    samples: int  # at that rate
    channels: int

    @property
    def seconds(self) -> float:
        """Duration of the song."""
        return self.samples / self.sample_rate

    def samples_at(self, sample_rate: int) -> int:
        """Return the number of samples at another rate, rounded down."""
        return self.samples * sample_rate // self.sample_rate


@dataclass(frozen=True)
class SkippedFile:
    """A file, or a row of the table, that is not used for training."""

    name: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """The songs of a folder, ordered by name."""

    folder: Path
    songs: tuple[SongEntry, ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def seconds(self) -> float:
        """Total duration of all songs."""
        return sum(song.seconds for song in self.songs)

    def split(self, train_fraction: float = 0.9) -> tuple[Catalogue, Catalogue]:
        """Split the songs into those to train on and those held out.

        The side of a song depends on a hash of its name only, so it does not change when other songs are added or
        removed. The exception is a side that would be empty: it gets the song whose hash is nearest to it. With a
        fraction of 1, nothing is held out, and a single song never is. Both results list all skipped files of the
        folder.
        """
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"train fraction: expected above 0 and at most 1, found {train_fraction}.")
        ordered = sorted(self.songs, key=lambda song: _name_fraction(song.name))
        count = sum(_name_fraction(song.name) < train_fraction for song in ordered)
        if train_fraction < 1:
            count = max(1, min(count, len(ordered) - 1))
        chosen = {song.name for song in ordered[:count]}
        train, held_out = ([s for s in self.songs if (s.name in chosen) is side] for side in (True, False))
        return replace(self, songs=tuple(train)), replace(self, songs=tuple(held_out))


@dataclass(frozen=True)
class CatalogueFilters:
    """Criteria for files that are left out of a catalogue."""

    min_seconds: float = _SHORTEST_SECONDS
    max_seconds: float | None = None
    silence_decibel: float | None = -60.0  # a file that never exceeds this level (full scale is 0) is silent; None: off

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < float("inf"):
            raise ConfigError(f"min seconds: expected 0 or more, found {self.min_seconds}.")
        if self.max_seconds is not None and not self.max_seconds > self.min_seconds:
            raise ConfigError(f"max seconds: expected more than {self.min_seconds:g}, found {self.max_seconds:g}.")

    @property
    def silence(self) -> float | None:
        """The largest magnitude of a sample that counts as silent."""
        return None if self.silence_decibel is None else 10 ** (self.silence_decibel / 20)


def read_catalogue(folder: Path, filters: CatalogueFilters | None = None, metadata: Path | None = None) -> Catalogue:
    """List the WAV, FLAC, OGG and MP3 files in a folder and its subfolders, with the labels of its table.

    The table is `metadata`, or else `metadata.jsonl` or `metadata.csv` in the folder if there is one; see `read_table`.
    Unusable files and rows without a file are listed as skipped. Hidden files and links to folders are ignored.

    Raises:
        DataError: for a folder that does not exist or has no sound files, and for a table that is invalid or names
            none of them.
    """
    folder = Path(folder)
    names = sorted(_sound_files(folder))
    if not names:
        raise DataError(f"{folder}: no sound files here (WAV, FLAC, OGG, MP3); name the folder that holds the songs.")
    path = find_table(folder) if metadata is None else Path(metadata)
    table = read_table(path) if path else None
    without_file = _rows_without_file(folder, names, table)
    labels = dict(table.songs) if table else {}
    with ThreadPoolExecutor(_THREADS) as pool:
        examine = partial(_examine, folder, filters or CatalogueFilters(), labels)
        found = list(pool.map(examine, names))
    songs = tuple(item for item in found if isinstance(item, SongEntry))
    return Catalogue(folder, songs, (*(s for s in found if isinstance(s, SkippedFile)), *without_file))


def _sound_files(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; name the folder that holds the songs.")
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield Path(place, file).relative_to(folder).as_posix()


def _rows_without_file(folder: Path, names: list[str], table: MetadataTable | None) -> list[SkippedFile]:
    if table is None:
        return []
    missing = sorted(set(table.songs) - {song_key(name) for name in names})
    if len(missing) == len(table.songs):
        example = f" (the first is {missing[0]}, a file that is there {names[0]})" if missing else ""
        raise DataError(
            f"{table.path}: none of its {len(missing)} rows names a sound file in {folder}{example}; the column 'file' "
            "holds names relative to that folder."
        )
    return [SkippedFile(name, f"{table.path.name} names it, but there is no such sound file") for name in missing]


def _examine(
    folder: Path, filters: CatalogueFilters, labels: dict[str, SongMetadata], name: str
) -> SongEntry | SkippedFile:
    path = folder / name
    try:
        with open_sound(path) as file:
            if reason := _reason_to_skip(file, filters):
                return SkippedFile(name, reason)
            rate, samples, channels = file.samplerate, file.frames, file.channels
    except AudioError as error:
        printable = name.encode("utf-8", "backslashreplace").decode()
        return SkippedFile(printable, str(error).removeprefix(f"{path}: ").removeprefix(f"{path} "))
    known = labels.get(song_key(name), SongMetadata())
    return SongEntry(path, name, known.artist, known.genres, known.lyrics, rate, samples, channels)


def _reason_to_skip(file: soundfile.SoundFile, filters: CatalogueFilters) -> str | None:
    """Return why a file is not used, or `None`; the cheapest checks come first."""
    seconds = file.frames / file.samplerate
    if file.frames == 0:
        return "empty, it holds no samples"
    if seconds < filters.min_seconds:
        return f"too short, {seconds:.3g} s of at least {filters.min_seconds:g} s"
    if filters.max_seconds is not None and seconds > filters.max_seconds:
        return f"too long, {seconds:.2f} s of at most {filters.max_seconds:g} s"
    length = min(file.frames, round(file.samplerate * _PROBE_SECONDS))
    if len(_read(file, file.frames - length, length)) < length:
        return f"cut off, it ends before the {seconds:.2f} s that its header promises"
    return _reason_of_samples(file, length, filters.silence)


def _reason_of_samples(file: soundfile.SoundFile, length: int, silence: float | None) -> str | None:
    if file.subtype not in _FLOATING and _is_loud_somewhere(file, length, silence):
        return None
    file.seek(0)  # it may contain NaN, or all stretches that were read are silent: read the whole file
    peak = float(np.max([_peak(block) for block in read_blocks(file, file.frames)]))
    if not np.isfinite(peak):
        return _NOT_FINITE
    silent = silence is not None and peak <= silence
    return f"silent, no sample exceeds {20 * np.log10(max(peak, 1e-10)):.0f} dB" if silent else None


def _is_loud_somewhere(file: soundfile.SoundFile, length: int, silence: float | None) -> bool:
    """Return whether any of a few stretches of the file is not silent."""
    starts = np.linspace(0, file.frames - length, _PROBES + 2, dtype=np.int64)[1:-1]
    return silence is None or any(_peak(_read(file, int(start), length)) > silence for start in starts)


def _peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())


def _read(file: soundfile.SoundFile, start: int, length: int) -> np.ndarray:
    file.seek(start)
    samples: np.ndarray = file.read(length, dtype="float32", always_2d=True)
    return samples


def songs_digest(songs: Iterable[SongEntry]) -> str:
    """Return a hash of what songs are, in their order: it changes with their names, lengths and labels."""
    rows = [[s.name, s.samples, s.sample_rate, s.artist, list(s.genres), s.lyrics] for s in songs]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _name_fraction(name: str) -> float:
    """Hash a name to a number in [0, 1), evenly distributed."""
    digest = hashlib.sha256(song_key(name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
