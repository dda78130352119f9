"""Metadata table of a folder of songs: artist, genres and lyrics by file, as JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.config_json import json_words
from jukebox_deploy.errors import DataError
from jukebox_deploy.listing import listed

TABLE_NAMES = ("metadata.jsonl", "metadata.csv")
_FILE, _ARTIST, _GENRES, _GENRE, _LYRICS = "file", "artist", "genres", "genre", "lyrics"
_SEPARATOR = ";"
"""Separator of genres in one cell."""
_LONGEST_CELL = 1 << 24
"""Maximum number of characters; the default of Python's CSV reader, 2^17, is too small for long lyrics."""


@dataclass(frozen=True)
class SongMetadata:
    """Metadata of a song from a table."""

    artist: str = ""
    genres: tuple[str, ...] = ()
    lyrics: str = ""


@dataclass(frozen=True)
class MetadataTable:
    """All rows of a table by the song's name, normalised by `song_key`."""

    path: Path
    songs: Mapping[str, SongMetadata]


def song_key(name: str) -> str:
    """Normalise the name of a file in its folder: without `./`, and in Unicode form NFC, which macOS may not store."""
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def find_table(folder: Path) -> Path | None:
    """Return the table in a folder of songs, if there is one; raise `DataError` if there are two."""
    found = [folder / name for name in TABLE_NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder}: holds both {' and '.join(TABLE_NAMES)}; remove one, or name the one to use.")
    return found[0] if found else None


def read_table(path: Path) -> MetadataTable:
    """Read a table with the column `file` and the optional columns `artist`, `genres` (or `genre`) and `lyrics`.

    Genres are a list, or text separated by `;`. Other columns are ignored. File names are relative to the folder of
    songs. Raises a `DataError` that names the line of an invalid row.
    """
    rows = _READERS.get(path.suffix.lower())
    if rows is None:
        raise DataError(f"{path}: expected a table of songs as .jsonl or .csv, found {path.suffix or 'no suffix'}.")
    songs: dict[str, SongMetadata] = {}
    lines: dict[str, int] = {}
    try:
        for line, row in rows(path):
            key, song = _parse_row(row, f"{path}, line {line}")
            if key in songs:
                raise DataError(f"{path}, line {line}: {key} is already on line {lines[key]}; remove one of the rows.")
            songs[key], lines[key] = song, line
    except OSError as error:
        raise DataError(f"{path}: the table cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the table is not UTF-8 text ({error}); save it as UTF-8.") from error
    return MetadataTable(path, songs)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {line}: not JSON ({error}); expected one object per line.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {line}: expected an object, found {type(row).__name__}.")
            yield line, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = next(reader, [])
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                if cells and len(cells) != len(columns):
                    raise DataError(
                        f"{where}: expected {len(columns)} cells, found {len(cells)}; put cells with commas or line "
                        "breaks in double quotes."
                    )
                if cells:
                    yield reader.line_num, dict(zip(columns, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}).") from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    ".jsonl": _json_rows,
    ".csv": _csv_rows,
}


def _parse_row(row: Mapping[str, Any], where: str) -> tuple[str, SongMetadata]:
    if _FILE not in row:
        raise DataError(f"{where}: expected a column {_FILE!r} with the song's name, found {listed(sorted(row), 8)}.")
    name = _text(row, _FILE, where).strip()
    if not name:
        raise DataError(f"{where}: the column {_FILE!r} is empty; name a file, or remove the row.")
    genres = _genres(row, _GENRES if _GENRES in row else _GENRE, where)
    return song_key(name), SongMetadata(_text(row, _ARTIST, where).strip(), genres, _text(row, _LYRICS, where))


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: {column}: expected text, found {json_words(value)}.")
    return value


def _genres(row: Mapping[str, Any], column: str, where: str) -> tuple[str, ...]:
    value = row.get(column)
    names = value.split(_SEPARATOR) if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        expected = f"a list of names, or text with {_SEPARATOR!r}"
        raise DataError(f"{where}: {column}: expected {expected}, found {json_words(value)}.")
    return tuple(name.strip() for name in names if name.strip())
