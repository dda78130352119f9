"""What the user asks for, as songs to sample: from options, from a file with a song per line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.errors import ConfigError, SamplingError
from jukebox_deploy.jobs.requests.lines import parse_line
from jukebox_deploy.jobs.requests.source_labels import with_labels_of_source
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


def build_jobs(defaults: Mapping[str, Any], count: int | None, out: Path) -> list[SongJob]:
    """One song in the folder `out`, or `count` songs of one seed in `song_0`, `song_1`, ... there.

    They differ only in their number. `defaults` are fields of `SongRequest`; what is `None` is not given.
    """
    if count is not None and count < 1:
        raise SamplingError(f"--songs {count} cannot be: {count} songs cannot be made; ask for at least 1.")
    given = _given(defaults)
    folders = [out] if count is None else [song_folder(out, index) for index in range(count)]
    return [
        SongJob(with_labels_of_source(SongRequest(**{**given, "song": number}), given, folder), folder)
        for number, folder in enumerate(folders)
    ]


def read_jobs(path: Path, defaults: Mapping[str, Any], out: Path) -> list[SongJob]:
    """Read songs from a file of JSON lines: objects with fields of `SongRequest`, as in `song.json`.

    `defaults` fill in what a line leaves out. Songs without a seed of their own are numbered, so that
    equal lines give different songs. They go into `song_0`, `song_1`, ... of `out`. Raises `SamplingError`
    that names the line.
    """
    lines = [(number, line) for number, line in enumerate(_read_text(path).split("\n"), start=1) if line.strip()]
    if not lines:
        raise SamplingError(f"{path}: there are no songs in this file; write one JSON object per line.")
    given = _plain(_given(defaults))
    jobs = []
    for index, (number, line) in enumerate(lines):
        try:
            jobs.append(_read_job(line, {**given, "song": number - 1}, song_folder(out, index)))
        except (ConfigError, SamplingError) as error:
            raise SamplingError(f"{path}, line {number}: {error}") from error
    return jobs


def song_folder(out: Path, index: int) -> Path:
    """The folder of one of several songs; messages call it by that number."""
    return out / f"song_{index}"


def _read_job(line: str, defaults: Mapping[str, Any], folder: Path) -> SongJob:
    fields = parse_line(line)
    own = {"song": 0} if "seed" in fields else {}
    given = {**defaults, **own, **fields}
    return SongJob(with_labels_of_source(config_from_dict(SongRequest, given, "song"), given, folder), folder)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: the songs cannot be read ({error}); give a text file in UTF-8.") from error


def _given(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value is not None}


def _plain(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults as JSON would give them."""
    return {**defaults, "levels": [asdict(level) for level in defaults.get("levels", ())]}


def read_lyrics(path: Path) -> str:
    """Lyrics from a text file in UTF-8; `SamplingError` if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: the lyrics cannot be read ({error}); give a text file in UTF-8.") from error
