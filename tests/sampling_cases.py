"""Short songs and sound files for the tests that sample with real engines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from jukebox_deploy.jobs.sample_job import OpenedModel, SampleSummary
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.store import read_codes

RATE = 44_100
LEVELS = 3
CODEBOOK_SIZE = 512


def write_sound(path: Path, seconds: float, rate: int = RATE, channels: int = 1, amplitude: float = 0.4) -> Path:
    """A rising tone."""
    time = np.arange(round(seconds * rate)) / rate
    tone = amplitude * np.sin(2 * np.pi * (200 * time + 150 * time**2))
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate)
    return path


def all_codes(folder: Path) -> list[list[int]]:
    """The codes of a song folder, level 0 first."""
    return [read_codes(folder, level, CODEBOOK_SIZE).tolist() for level in range(LEVELS)]


def sample(model: OpenedModel, jobs: Iterable[SongJob], options: SamplingOptions | None = None) -> SampleSummary:
    """Sample to the end."""
    summary = SampleSummary(list(jobs))
    for event in model.sampler(options or SamplingOptions()).sample(summary.jobs):
        summary.note(event)
    return summary
