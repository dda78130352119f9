"""Log-magnitude spectrograms of songs in one picture, with a panel per song."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jukebox_deploy.errors import AudioError
from jukebox_deploy.files import atomic_path

_FFT_LENGTH = 2048
_MAX_COLUMNS = 2000  # approximate limit of frames: more frames than pixels would not be visible
_RANGE_DECIBEL = 90.0


@dataclass(frozen=True)
class PictureStyle:
    """Resolution of the spectrograms, and size of the picture."""

    fft_length: int = _FFT_LENGTH  # samples
    panel_inches: tuple[float, float] = (10.0, 2.6)  # width and height of one song's panel
    dpi: int = 120
    colours: int | None = None  # palette size of the file; a few dozen colours make it a third as large; None: no limit


def log_magnitudes(audio: np.ndarray, fft_length: int = _FFT_LENGTH) -> np.ndarray:
    """Convert audio `[samples]` to decibels relative to the loudest bin, `[frequencies, frames]`.

    Values are at most 0; the lowest frequency comes first. The windows are Hann windows. Their hop grows with the
    length of the audio, so that the number of frames stays below the number of pixels that can show them.
    """
    padded = np.pad(audio, (0, max(0, fft_length - len(audio))))
    hop = max(fft_length // 4, len(padded) // _MAX_COLUMNS)
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft_length)[::hop]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(fft_length + 1)[:-1], axis=1)).T
    loudest = max(float(magnitudes.max()), np.finfo(np.float32).tiny)
    decibel: np.ndarray = 20.0 * np.log10(np.maximum(magnitudes / loudest, 10.0 ** (-_RANGE_DECIBEL / 20.0)))
    return decibel


def write_spectrogram(
    path: Path, songs: Mapping[str, np.ndarray], sample_rate: int, style: PictureStyle | None = None
) -> None:
    """Draw the spectrograms of songs, audio `[samples]` by title, into one PNG.

    Raises `AudioError` if there is nothing to draw. The figure is made without pyplot, which would need a display
    backend and leave global state behind.
    """
    from matplotlib.figure import Figure

    if not songs or any(len(audio) == 0 for audio in songs.values()):
        raise AudioError(f"{path}: a spectrogram needs at least one song, with at least one sample in each.")
    style = style or PictureStyle()
    width, height = style.panel_inches
    figure = Figure(figsize=(width, height * len(songs)), dpi=style.dpi, layout="constrained")
    for axes, (title, audio) in zip(figure.subplots(len(songs), squeeze=False)[:, 0], songs.items(), strict=True):
        image = axes.imshow(
            log_magnitudes(audio, style.fft_length),
            origin="lower",
            aspect="auto",
            extent=(0.0, len(audio) / sample_rate, 0.0, sample_rate / 2000.0),
            cmap="magma",
        )
        axes.set(title=title, xlabel="time (s)", ylabel="frequency (kHz)")
        figure.colorbar(image, ax=axes, label="dB")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=style.dpi)
        if style.colours is not None:
            _limit_colours(temporary, style.colours)


def _limit_colours(path: Path, colours: int) -> None:
    """Rewrite a PNG with a palette of that many colours."""
    from PIL import Image

    with Image.open(path) as image:
        fewer = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    fewer.save(path, format="PNG", optimize=True)
