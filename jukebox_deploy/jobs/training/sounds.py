"""Sounds and pictures of a run in work, for the ear and the eye."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jukebox_deploy.files import atomic_path
from jukebox_deploy.runtime.spectrogram import write_spectrogram

_PEAK = 0.999  # louder sound is clipped in 16 bits


def write_sounds(folder: Path, name: str, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
    """Write each sound `[samples]` as `NAME_TITLE.flac`, and all in one spectrogram `NAME.png`."""
    import soundfile

    for title, audio in sounds.items():
        with atomic_path(folder / f"{name}_{title.replace(' ', '_')}.flac") as partial:
            soundfile.write(partial, np.clip(audio, -_PEAK, _PEAK), sample_rate, format="FLAC")
    write_spectrogram(folder / f"{name}.png", sounds, sample_rate)
