"""Files of one song: its sound and its score. The score is written last, so its existence marks a complete song."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.synthesis.composition import compose
from jukebox_deploy.data.synthesis.documents import song_row, song_score
from jukebox_deploy.data.synthesis.performance import perform
from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.errors import AudioError, ConfigError
from jukebox_deploy.files import atomic_path, sha256_of_file, write_json_atomic

GENERATOR_VERSION = 3
"""Version of the generator, to be increased with every change that alters songs."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
WIDEST_GRID = 0.2  # seconds; about half a beat of a fast song
_FULL_SCALE = 32_767  # of 16-bit samples


class SoundFormat(StrEnum):
    """Format of the sound files; both are lossless with 16 bits per sample."""

    FLAC = "flac"
    WAV = "wav"


@dataclass(frozen=True)
class CorpusIdentity:
    """Everything that the files of a corpus depend on: the same identity gives the same bytes.

    Raises `ConfigError` for invalid values.
    """

    seed: int = 0
    rate: int = 44_100
    sound_format: SoundFormat = SoundFormat.FLAC
    grid: float = 0.0  # seconds; sounds begin at multiples of it; 0 means at any time
    arrangement: Arrangement = Arrangement.FULL
    generator: int = GENERATOR_VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed: expected an integer from 0 to 2^64 - 1, found {self.seed}.")
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise ConfigError(f"rate: expected {LOWEST_RATE} to {HIGHEST_RATE} samples per second, found {self.rate}.")
        if not 0 <= self.grid <= WIDEST_GRID:
            raise ConfigError(f"grid: expected 0 to {WIDEST_GRID} seconds, found {self.grid:g}.")

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data."""
        return {**asdict(self), "sound_format": self.sound_format.value, "arrangement": self.arrangement.value}


@dataclass(frozen=True)
class SongFiles:
    """A finished song of a corpus."""

    number: int
    row: dict[str, Any]  # of the corpus's table
    sha256: str  # of the sound file

    @property
    def seconds(self) -> float:
        """Duration of the sound."""
        return float(self.row["seconds"])


def make_song(folder: Path, identity: CorpusIdentity, number: int) -> SongFiles:
    """Compose, perform and write one song; the bytes are the same on every run and in every process.

    Raises `AudioError` or `JukeboxError` if a file cannot be written.
    """
    song = compose(identity.seed, number, identity.grid, identity.arrangement)
    samples = perform(song, identity.rate)
    sound, score = _names(identity, number)
    _write_sound(folder / sound, samples, identity)
    row = {"file": sound, "score": score, "seconds": len(samples) / identity.rate, **song_row(song)}
    size, digest = (folder / sound).stat().st_size, sha256_of_file(folder / sound)
    written = {"identity": identity.to_json(), "number": number, "sound": {"bytes": size, "sha256": digest}}
    write_json_atomic(folder / score, {**written, "song": row, **song_score(song)})
    return SongFiles(number, row, digest)


def finished_song(folder: Path, identity: CorpusIdentity, number: int) -> SongFiles | None:
    """Return the song if an earlier run finished it and its files still exist, else `None`."""
    sound, score = _names(identity, number)
    try:
        document = json.loads((folder / score).read_text(encoding="utf-8"))
        complete = (
            document["identity"] == identity.to_json()
            and document["number"] == number
            and (folder / sound).stat().st_size == document["sound"]["bytes"]
        )
        return SongFiles(number, document["song"], document["sound"]["sha256"]) if complete else None
    except (OSError, ValueError, TypeError, KeyError):  # missing, or not written by this module
        return None


def _names(identity: CorpusIdentity, number: int) -> tuple[str, str]:
    """Return the paths of sound and score, relative to the corpus."""
    return f"audio/{number:04d}.{identity.sound_format}", f"scores/{number:04d}.json"


def _write_sound(path: Path, samples: npt.NDArray[np.float32], identity: CorpusIdentity) -> None:
    import soundfile

    if not math.isfinite(float(samples.sum())):
        raise AudioError(f"{path}: the sound is not finite (NaN or infinity); this is a bug, please report it.")
    # Rounded here, because libsndfile rounds differently for each format.
    whole = np.round(samples * _FULL_SCALE).astype(np.int16)
    try:
        with atomic_path(path) as partial:
            soundfile.write(partial, whole, identity.rate, "PCM_16", format=identity.sound_format.upper())
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: the sound file could not be written ({error}). Check the free disk space and try again."
        ) from error
