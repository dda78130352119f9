"""A model's own defaults for sampling, as recommended by its author.

A checkpoint bundle may contain `sampling.json`, an object with the fields of `SamplingAdvice`. It does not affect
weights, and so is not part of the bundle's fingerprint. Whatever is made from the bundle inherits it: checkpoint
bundles as that file, engine bundles in their manifest. It supplies defaults for options that are not given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.engines.bundle import MANIFEST_NAME, EngineBundle
from jukebox_deploy.errors import ConfigError, SamplingError
from jukebox_deploy.runtime.song import FROM_CODES, LevelSettings, SongRequest

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle_folder import BundleFolder

SAMPLING_FILE = "sampling.json"


@dataclass(frozen=True)
class SamplingAdvice:
    """A model's own defaults for sampling; without fields, it has none."""

    levels: tuple[LevelSettings, ...] = ()  # level 0 first, of all levels or of none
    total_seconds: float | None = None  # total length to condition on; None: the sampled length

    def __post_init__(self) -> None:
        if self.total_seconds is not None and not (math.isfinite(self.total_seconds) and self.total_seconds > 0):
            raise SamplingError(f"total_seconds {self.total_seconds} is invalid; give more than 0 seconds, or null.")

    def settings(self, level: int) -> LevelSettings:
        """Return the settings of a level."""
        return self.levels[level] if self.levels else LevelSettings()

    def all_settings(self, levels: int) -> tuple[LevelSettings, ...]:
        """Return the settings of all `levels` levels, level 0 first."""
        return tuple(self.settings(level) for level in range(levels))

    def with_length(self, request: SongRequest, given: Container[str]) -> SongRequest:
        """Return the request with the model's default for `total_seconds`, unless that is `given`.

        The default does not apply to songs that extend beyond it, which end where sampling ends, nor to songs that
        start from the codes of another song, which inherit its total length.
        """
        end = request.offset_seconds + (request.seconds or 0.0)
        if self.total_seconds is None or "total_seconds" in given or request.mode in FROM_CODES:
            return request
        return replace(request, total_seconds=self.total_seconds) if end <= self.total_seconds else request

    def to_json(self) -> dict[str, Any] | None:
        """Return the fields as plain data; `None` if there is no advice."""
        return None if self == NO_ADVICE else config_to_dict(self)

    def as_file(self) -> dict[str, Any]:
        """Return the file to write into a checkpoint bundle, plain data by file name; empty if there is no advice."""
        data = self.to_json()
        return {} if data is None else {SAMPLING_FILE: data}


NO_ADVICE = SamplingAdvice()


def read_advice(folder: Path, levels: int) -> SamplingAdvice:
    """Read `sampling.json` in the folder of a checkpoint bundle; `levels` is the number of levels of the model.

    Raises `SamplingError` for a file that is damaged or made for another number of levels.
    """
    path = folder / SAMPLING_FILE
    if not path.exists():
        return NO_ADVICE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SamplingError(f"{path}: not readable as JSON ({error}); mend it, or remove it.") from error
    return _from_json(data, levels, str(path))


def bundle_advice(bundle: BundleFolder) -> SamplingAdvice:
    """Read the advice of a checkpoint bundle; raises as `read_advice` does."""
    return read_advice(bundle.folder, bundle.config.vqvae.levels)


def joined_advice(levels: int, parts: Mapping[int, SamplingAdvice]) -> SamplingAdvice:
    """Combine the advice of several models, by level, into that of a model made from their priors.

    Each level keeps its settings; the total length is that of the top prior's model.
    """
    top = parts.get(levels - 1, NO_ADVICE)
    settings = tuple(parts.get(level, NO_ADVICE).settings(level) for level in range(levels))
    return SamplingAdvice(settings if any(part.levels for part in parts.values()) else (), top.total_seconds)


def engine_advice(bundle: EngineBundle) -> SamplingAdvice:
    """Read the advice in the manifest of an engine bundle. Raises `SamplingError` as `read_advice` does."""
    manifest = bundle.manifest
    if manifest.sampling is None:
        return NO_ADVICE
    return _from_json(manifest.sampling, manifest.config.vqvae.levels, str(bundle.folder / MANIFEST_NAME))


def _from_json(data: Any, levels: int, where: str) -> SamplingAdvice:
    try:
        advice = config_from_dict(SamplingAdvice, data, "settings for sampling")
    except (ConfigError, SamplingError) as error:
        raise SamplingError(f"{where}: {error} Mend it, or do without.") from error
    if advice.levels and len(advice.levels) != levels:
        raise SamplingError(
            f"{where}: settings for {len(advice.levels)} levels, and the model has {levels}; give one for each."
        )
    return advice
