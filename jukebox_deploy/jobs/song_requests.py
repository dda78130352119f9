"""What the user asks for, as songs to sample: from options, from a file with a song per line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.errors import ConfigError, SamplingError
from jukebox_deploy.runtime.sampler import SongJob
from jukebox_deploy.runtime.song import LevelSettings, SongRequest


@dataclass(frozen=True)
class LevelValue:
    """A setting for one level, or for all levels (`None`)."""

    level: int | None
    value: float


def level_settings(levels: int, values: Mapping[str, Sequence[LevelValue]]) -> tuple[LevelSettings, ...]:
    """Settings of every level from values by field name; those for one level win over those for all.

    Raises `SamplingError` for levels that the model lacks and for values that cannot be.
    """
    chosen: list[dict[str, Any]] = [{} for _ in range(levels)]
    for name, entries in values.items():
        for entry in sorted(entries, key=lambda e: e.level is not None):
            if entry.level is not None and not 0 <= entry.level < levels:
                raise SamplingError(f"{name}: there is no level {entry.level}; the model has 0 to {levels - 1}.")
            for level in range(levels) if entry.level is None else [entry.level]:
                chosen[level][name] = entry.value
    return tuple(LevelSettings(**fields) for fields in chosen)


def build_requests(defaults: Mapping[str, Any], count: int) -> list[SongRequest]:
    """Several songs of one seed that differ only in their number."""
    if count < 1:
        raise SamplingError(f"{count} songs cannot be; ask for at least 1.")
    return [SongRequest(**{**defaults, "song": number}) for number in range(count)]


def read_requests(path: Path, defaults: Mapping[str, Any]) -> list[SongRequest]:
    """Read songs from a file of JSON lines: objects with fields of `SongRequest`, as in `song.json`.

    `defaults` fill in what a line leaves out. Songs without a seed of their own are numbered, so that
    equal lines give different songs. Raises `SamplingError` that names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: the songs cannot be read ({error}).") from error
    requests = [
        _read_request(f"{path}, line {number}", line, {**defaults, "song": number - 1})
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not requests:
        raise SamplingError(f"{path}: there are no songs in this file; write one JSON object per line.")
    return requests


def _read_request(where: str, line: str, defaults: Mapping[str, Any]) -> SongRequest:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise SamplingError(f"{where}: not JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise SamplingError(f"{where}: expected an object such as {{'artist': 'name', 'seconds': 20}}, found {line!r}.")
    own = {"song": 0} if "seed" in fields else {}
    try:
        return config_from_dict(SongRequest, {**_plain(defaults), **own, **fields}, "song")
    except (ConfigError, SamplingError) as error:
        raise SamplingError(f"{where}: {error}") from error


def _plain(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults as JSON would give them."""
    return {**defaults, "levels": [asdict(level) for level in defaults.get("levels", ())]}


def song_jobs(requests: Sequence[SongRequest], out: Path) -> list[SongJob]:
    """Songs in the folders `song_0`, `song_1`, ... of `out`."""
    return [SongJob(request, out / f"song_{index}") for index, request in enumerate(requests)]


def read_lyrics(path: Path) -> str:
    """Lyrics from a text file in UTF-8; `SamplingError` if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: the lyrics cannot be read ({error}); give a text file in UTF-8.") from error
