"""The model that comes with the source, and what else a model's folder may say about the songs it makes best.

Beside the checkpoint bundle's own files may lie `sampling.json`, an object with the fields of `SamplingAdvice`, and
`prompt.flac`, a sound to begin with. They decide no weights, so a bundle is the same with and without them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.errors import ConfigError, SamplingError
from jukebox_deploy.runtime.song import LevelSettings

SHIPPED = Path(__file__).resolve().parents[2] / "models" / "small_demo"
"""Where it is in a clone of the repository. The wheel does not have it."""

SAMPLING_FILE, PROMPT_FILE = "sampling.json", "prompt.flac"
_CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class SamplingAdvice:
    """How the songs of a model are best sampled."""

    levels: tuple[LevelSettings, ...]  # level 0 first
    total_seconds: float | None = None  # how long the model is told that a song is; None: as long as what is sampled


def shipped_model(folder: Path = SHIPPED) -> Path | None:
    """The folder of the checkpoint bundle that comes with a clone; `None` where there is none."""
    return folder if (folder / _CONFIG_FILE).is_file() else None


def sampling_advice(folder: Path, levels: int) -> SamplingAdvice:
    """What `sampling.json` in a bundle's folder says, else the defaults; `levels` is how many the model has.

    Raises `SamplingError` for a file that is damaged or made for another number of levels.
    """
    path = folder / SAMPLING_FILE
    if not path.exists():
        return SamplingAdvice((LevelSettings(),) * levels)
    try:
        advice = config_from_dict(SamplingAdvice, json.loads(path.read_text(encoding="utf-8")), SAMPLING_FILE)
    except (OSError, ValueError, ConfigError, SamplingError) as error:
        raise SamplingError(f"{path}: no settings for sampling ({error}); mend it, or remove it.") from error
    if len(advice.levels) != levels:
        raise SamplingError(
            f"{path}: settings for {len(advice.levels)} levels, and the model has {levels}; give one for each."
        )
    return advice
