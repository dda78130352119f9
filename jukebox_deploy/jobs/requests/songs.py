"""Songs to sample, from command-line options or from a file with one song per line."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.errors import ConfigError, SamplingError
from jukebox_deploy.jobs.requests.lines import parse_line
from jukebox_deploy.jobs.requests.source_labels import with_labels_of_source
from jukebox_deploy.jobs.sampling_advice import NO_ADVICE, SamplingAdvice
from jukebox_deploy.runtime.sampler import SongJob
from jukebox_deploy.runtime.song import LevelSettings, SongRequest

_FILTERS = {"top_k", "top_p"}
"""Settings of a level of which at most one may be on."""


@dataclass(frozen=True)
class LevelValue:
    """A setting for one level, or for all levels (`None`)."""

    level: int | None
    value: float


LevelValues = Mapping[str, Sequence[LevelValue]]
"""Values by field of `LevelSettings`."""


def level_settings(levels: int, values: LevelValues, advice: SamplingAdvice = NO_ADVICE) -> tuple[LevelSettings, ...]:
    """Return the settings of every level; values for one level override those for all, and both override advice.

    Raises `SamplingError` for levels that the model lacks and for invalid values.
    """
    advised = advice.all_settings(levels)
    return tuple(
        LevelSettings(**_filled(fields, asdict(settings)))
        for fields, settings in zip(_by_level(levels, values), advised, strict=True)
    )


def advice_left(advice: SamplingAdvice, levels: int, values: LevelValues) -> tuple[LevelSettings, ...]:
    """Return only the settings that `level_settings` takes from advice; others have their defaults."""
    advised = advice.all_settings(levels)
    return tuple(
        LevelSettings(
            **{name: value for name, value in _filled(fields, asdict(settings)).items() if name not in fields}
        )
        for fields, settings in zip(_by_level(levels, values), advised, strict=True)
    )


def _filled(fields: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the settings of a level from `others`; a given filter (top_k, top_p) replaces the other one."""
    left_out = _FILTERS if _FILTERS & fields.keys() else set()
    return {**{name: value for name, value in others.items() if name not in left_out}, **fields}


def _by_level(levels: int, values: LevelValues) -> list[dict[str, Any]]:
    """Return the given fields for each level."""
    chosen: list[dict[str, Any]] = [{} for _ in range(levels)]
    for name, entries in values.items():
        for entry in sorted(entries, key=lambda e: e.level is not None):
            if entry.level is not None and not 0 <= entry.level < levels:
                raise SamplingError(f"{name}: there is no level {entry.level}; the model has 0 to {levels - 1}.")
            for level in range(levels) if entry.level is None else [entry.level]:
                chosen[level][name] = entry.value
    return chosen


def build_jobs(
    defaults: Mapping[str, Any], count: int | None, out: Path, advice: SamplingAdvice = NO_ADVICE
) -> list[SongJob]:
    """Return one song in the folder `out`, or `count` songs with one seed in `song_0`, `song_1`, ... there.

    They differ only in their number. `defaults` are fields of `SongRequest`, where `None` means not given. `advice`
    supplies the total length if that is not given.
    """
    if count is not None and count < 1:
        raise SamplingError(f"--songs {count}: the number of songs cannot be below 1; ask for at least 1.")
    given = _given(defaults)
    folders = [out] if count is None else [song_folder(out, index) for index in range(count)]
    return [
        _job(SongRequest(**{**given, "song": number}), given, folder, advice) for number, folder in enumerate(folders)
    ]


def read_jobs(path: Path, defaults: Mapping[str, Any], out: Path, advice: SamplingAdvice = NO_ADVICE) -> list[SongJob]:
    """Read songs from a file of JSON lines: objects with fields of `SongRequest`, as in `song.json`.

    `defaults` supply what a line leaves out, including settings of levels; `advice` is as in `build_jobs`. Songs
    without a seed of their own are numbered, so that equal lines give different songs. Songs go into `song_0`,
    `song_1`, ... of `out`. Raises a `SamplingError` that names the line.
    """
    lines = [
        (number, line) for number, line in enumerate(_read_text(path, "songs").split("\n"), start=1) if line.strip()
    ]
    if not lines:
        raise SamplingError(f"{path}: there are no songs in this file; write one JSON object per line.")
    given = _plain(_given(defaults))
    jobs = []
    for index, (number, line) in enumerate(lines):
        try:
            jobs.append(_read_job(line, {**given, "song": number - 1}, song_folder(out, index), advice))
        except (ConfigError, SamplingError) as error:
            raise SamplingError(f"{path}, line {number}: {error}") from error
    return jobs


def song_folder(out: Path, index: int) -> Path:
    """Return the folder of one of several songs; messages use the same number."""
    return out / f"song_{index}"


def _read_job(line: str, defaults: Mapping[str, Any], folder: Path, advice: SamplingAdvice) -> SongJob:
    fields = parse_line(line)
    own = {"song": 0} if "seed" in fields else {}
    given = {**defaults, **own, **fields}
    if isinstance(given["levels"], list):
        given["levels"] = _filled_levels(given["levels"], defaults["levels"])
    return _job(config_from_dict(SongRequest, given, "song"), given, folder, advice)


def _filled_levels(levels: list[Any], others: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Complete the settings of levels in a line from `others`."""
    pairs: Iterable[tuple[Any, Any]] = zip_longest(levels, others, fillvalue={})
    return [_filled(fields, settings) if isinstance(fields, dict) else fields for fields, settings in pairs]


def _job(request: SongRequest, given: Container[str], folder: Path, advice: SamplingAdvice) -> SongJob:
    """Return a song, with fields that are not given taken from its source or the advice."""
    return SongJob(advice.with_length(with_labels_of_source(request, given, folder), given), folder)


def _given(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in defaults.items() if value is not None}


def _plain(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults as plain data, as read from JSON."""
    return {**defaults, "levels": [asdict(level) for level in defaults.get("levels", ())]}


def read_lyrics(path: Path) -> str:
    """Read lyrics from a text file in UTF-8. Raises `SamplingError` if it is not one."""
    return _read_text(path, "lyrics")


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SamplingError(f"{path}: the {what} cannot be read ({error}); give a text file in UTF-8.") from error
