"""Small folders of songs, good and bad, to test with in no time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 8_000
RAMP_STEP = 2.0**-15
FORMATS = ("wav", "flac", "ogg", "mp3")


def tone(seconds: float, rate: int = RATE, frequency: float = 440.0, peak: float = 0.5) -> np.ndarray:
    """A sine `[samples]`."""
    return (peak * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def ramp(count: int) -> np.ndarray:
    """Samples that tell where they are: sample `i` is `(i + 1) * RAMP_STEP`, exact in float32."""
    return (np.arange(1, count + 1) * RAMP_STEP).astype(np.float32)


def write_sound(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write samples `[samples]` or `[samples, channels]` in the format of the file's name; WAV as float."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sound_format = path.suffix[1:].upper()
    soundfile.write(path, samples, rate, "FLOAT" if sound_format == "WAV" else None, format=sound_format)
    return path


def cut_off(path: Path, share: float = 0.6) -> Path:
    """Remove the end of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def streamed(path: Path) -> Path:
    """Remove the number of samples from a FLAC file's header, as when an encoder writes to a pipe."""
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number has 36 bits of the first block, which begins at byte 8
    content[22:26] = bytes(4)
    path.write_bytes(content)
    return path


def write_table(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "metadata.jsonl") -> Path:
    """Write a table of songs as JSON lines."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def noise(seconds: float, seed: int = 0, rate: int = RATE, channels: int | None = None) -> np.ndarray:
    """White noise `[samples]`, or `[samples, channels]`."""
    count = round(seconds * rate)
    shape = count if channels is None else (count, channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)
