"""What is in a folder of songs: sound files with their labels, and what is left out and why.

Only headers and a few short stretches of each file are read, so that thousands of files take seconds. Files of
floating point numbers are read as a whole: they alone can hold what is no number, anywhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
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
_THREADS = 4  # reading waits for the disk
_SHORTEST_SECONDS = 0.05  # a VQ-VAE's spectral losses hear nothing in less
_FLOATING = ("FLOAT", "DOUBLE")  # libsndfile's names of such samples
_UNKNOWN_LENGTH = 2**63 - 1  # libsndfile's, for instance of a FLAC stream
_NOT_FINITE = "samples that are not finite (NaN or infinity)"


@dataclass(frozen=True)
class SongEntry:
    """A sound file and its labels; empty where nothing is known."""

    path: Path
    name: str  # relative to the folder, with `/`
    artist: str
    genres: tuple[str, ...]
    lyrics: str
    sample_rate: int
    samples: int  # at that rate
    channels: int

    @property
    def seconds(self) -> float:
        """Length of the song."""
        return self.samples / self.sample_rate

    def samples_at(self, sample_rate: int) -> int:
        """Length at another rate, rounded down."""
        return self.samples * sample_rate // self.sample_rate


@dataclass(frozen=True)
class SkippedFile:
    """Something that is not trained on."""

    name: str
    reason: str


@dataclass(frozen=True)
class Catalogue:
    """The songs of a folder in the order of their names."""

    folder: Path
    songs: tuple[SongEntry, ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def seconds(self) -> float:
        """Length of all songs."""
        return sum(song.seconds for song in self.songs)

    def split(self, train_fraction: float = 0.9) -> tuple[Catalogue, Catalogue]:
        """The songs to train on, and those held out.

        A song's name alone decides, so it stays on its side when others come or go. Only if one
        side were empty does it get the song whose name is nearest to it; with a fraction of 1
        nothing is held out. Both sides list what the folder's catalogue has skipped.
        """
        if not 0 < train_fraction <= 1:
            raise ConfigError(f"train fraction: expected above 0 and at most 1, found {train_fraction}.")
        ordered = sorted(self.songs, key=lambda song: _name_fraction(song.name))
        count = sum(_name_fraction(song.name) < train_fraction for song in ordered)
        if train_fraction < 1 and len(ordered) > 1:
            count = min(max(count, 1), len(ordered) - 1)
        chosen = {song.name for song in ordered[:count]}
        train, held_out = ([s for s in self.songs if (s.name in chosen) is side] for side in (True, False))
        return replace(self, songs=tuple(train)), replace(self, songs=tuple(held_out))


@dataclass(frozen=True)
class CatalogueFilters:
    """What is left out of a catalogue."""

    min_seconds: float = _SHORTEST_SECONDS
    max_seconds: float | None = None
    silence_decibel: float | None = -60.0  # files that never exceed it, full scale being 0; `None`: none

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < float("inf"):
            raise ConfigError(f"min seconds: expected 0 or more, found {self.min_seconds}.")
        if self.max_seconds is not None and not self.max_seconds > self.min_seconds:
            raise ConfigError(f"max seconds: expected more than {self.min_seconds:g}, found {self.max_seconds:g}.")

    @property
    def silence(self) -> float | None:
        """The largest magnitude of a sample that counts as silence."""
        return None if self.silence_decibel is None else 10 ** (self.silence_decibel / 20)


def read_catalogue(folder: Path, filters: CatalogueFilters | None = None, metadata: Path | None = None) -> Catalogue:
    """List the WAV, FLAC, OGG and MP3 files in a folder and below, with the labels of its table.

    The table is `metadata` or else `metadata.jsonl` or `metadata.csv` in the folder, if it is there;
    see `read_table`. Files that cannot be used and rows without a file are listed as skipped. Hidden
    files and links to folders are passed by.

    Raises:
        DataError: for a folder that is not there or holds no sound files, and for a table that is
            broken or names none of them.
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
    """Why a file is not used, by what is cheapest to find out first."""
    if file.frames == _UNKNOWN_LENGTH:
        return "its header does not say how long it is; convert the file again"
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
    file.seek(0)  # it can hold NaN, or is quiet wherever it was tried: be sure of it
    peak = float(np.max([_peak(block) for block in read_blocks(file, file.frames)]))
    if not np.isfinite(peak):
        return _NOT_FINITE
    silent = silence is not None and peak <= silence
    return f"silent, no sample exceeds {20 * np.log10(max(peak, 1e-10)):.0f} dB" if silent else None


def _is_loud_somewhere(file: soundfile.SoundFile, length: int, silence: float | None) -> bool:
    """Whether one of a few stretches is not silent."""
    starts = np.linspace(0, file.frames - length, _PROBES + 2, dtype=np.int64)[1:-1]
    return silence is None or any(_peak(_read(file, int(start), length)) > silence for start in starts)


def _peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())


def _read(file: soundfile.SoundFile, start: int, length: int) -> np.ndarray:
    file.seek(start)
    samples: np.ndarray = file.read(length, dtype="float32", always_2d=True)
    return samples


def _name_fraction(name: str) -> float:
    """A number from 0 to below 1 that a name always gives, evenly distributed."""
    digest = hashlib.sha256(song_key(name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
