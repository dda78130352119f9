"""Audio files and spectrograms for the reports of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jukebox_deploy.files import atomic_path
from jukebox_deploy.jobs.spectrogram import write_spectrogram

_PEAK = 0.999  # samples of 1.0 and more would overflow in 16 bits


def write_sounds(folder: Path, name: str, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
    """Write each sound `[samples]` as `NAME_TITLE.flac`, and the spectrograms of all in one picture, `NAME.png`.

    Raises `JukeboxError` if there is no disk space or no permission.
    """
    import soundfile

    for title, audio in sounds.items():
        with atomic_path(folder / f"{name}_{title.replace(' ', '_')}.flac") as partial:
            soundfile.write(partial, np.clip(audio, -_PEAK, _PEAK), sample_rate, format="FLAC")
    write_spectrogram(folder / f"{name}.png", sounds, sample_rate)
