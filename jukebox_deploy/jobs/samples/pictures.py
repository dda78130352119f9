"""A picture of samples: spectrograms next to those of the corpus, and confusion matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jukebox_deploy.data.coverage import spread_indices
from jukebox_deploy.files import atomic_path
from jukebox_deploy.jobs.samples.quality import SampleQuality
from jukebox_deploy.jobs.samples.recognition import Recognition
from jukebox_deploy.jobs.samples.song_clips import Clip, ClipFormat
from jukebox_deploy.jobs.spectrogram import log_magnitudes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROWS = 4  # number of samples shown


def write_sample_picture(path: Path, quality: SampleQuality) -> None:
    """Draw an evaluation as PNG: some samples with a corpus clip each, and confusion matrices."""
    from matplotlib.figure import Figure

    shown = [quality.sampled[index] for index in spread_indices(len(quality.sampled), _ROWS)]
    pairs = [(sample, nearest_clip(sample, quality.corpus)) for sample in shown]
    matrices = quality.recognitions
    rows = len(pairs) + bool(matrices)
    figure = Figure(figsize=(12, 2.2 * len(pairs) + (5 if matrices else 0)), layout="constrained")
    grid = figure.add_gridspec(rows, 2, height_ratios=[2.2] * len(pairs) + [5.0] * bool(matrices))
    for row, (sample, clip) in enumerate(pairs):
        _draw_sound(figure.add_subplot(grid[row, 0]), f"sample {sample.song}", sample, quality.form)
        _draw_sound(figure.add_subplot(grid[row, 1]), "corpus", clip, quality.form)
    for column, recognition in enumerate(matrices):
        _draw_matrix(figure.add_subplot(grid[len(pairs), column]), recognition)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def nearest_clip(sample: Clip, corpus: tuple[Clip, ...]) -> Clip:
    """Return the first clip with the sample's artist and genre, else with one of them, else any clip."""
    return max(corpus, key=lambda clip: 2 * (clip.genre == sample.genre) + (clip.artist == sample.artist))


def _draw_sound(axes: Axes, title: str, clip: Clip, form: ClipFormat) -> None:
    extent = (0.0, form.seconds, 0.0, form.rate / 2000.0)
    axes.imshow(log_magnitudes(clip.read(form)), origin="lower", aspect="auto", extent=extent, cmap="magma")
    labels = ", ".join(name for name in (clip.artist, clip.genre) if name)
    axes.set_title(f"{title}: {labels or 'no labels'}", fontsize=9)
    axes.set(xlabel="time (s)", ylabel="kHz")


def _draw_matrix(axes: Axes, recognition: Recognition) -> None:
    matrix = np.array(recognition.confusion)
    axes.imshow(matrix, cmap="Blues", vmin=0)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            dark = count > matrix.max() / 2
            axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    places = range(len(recognition.names))
    axes.set_xticks(places, recognition.names, rotation=40, ha="right")
    axes.set_yticks(places, recognition.names)
    axes.set(xlabel="heard", ylabel="asked for")
    axes.set_title(
        f"{recognition.kind}: {recognition.accuracy:.0%} of {recognition.samples} (chance {recognition.chance:.0%}, "
        f"corpus {recognition.corpus_accuracy:.0%})",
        fontsize=10,
    )
