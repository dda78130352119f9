"""Batches of windows of codes with their labels, for training priors (specification sections 11, 12.2 and 18).

A batch is a pure function of seed, step and process, so no state has to be saved to resume a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jukebox_deploy.config import LabelConfig, LabelRules, PriorConfig, VQVAEConfig
from jukebox_deploy.data.catalogue import SkippedFile
from jukebox_deploy.data.code_cache import CodedSong, CodedSongs
from jukebox_deploy.data.coverage import Coverage, Place, spread_indices
from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.order import ExampleOrder
from jukebox_deploy.errors import DataError, LabelError
from jukebox_deploy.labels.rows import LabelledSong, SongLabels, SongText, label_song, window_labels
from jukebox_deploy.labels.timing import duration_limits
from jukebox_deploy.labels.vocabulary import Vocabulary, normalise

WindowBatch = dict[str, npt.NDArray[np.int64]]
"""Codes and the arrays of `WindowLabels`, by name; the first axis is `B`."""


@dataclass(frozen=True)
class WindowSettings:
    """Settings of the batches of windows."""

    batch: int  # windows per step and process
    seed: int


class CodeWindows:
    """All windows of songs in random order; every epoch covers every song that the prior can be trained on."""

    def __init__(
        self,
        songs: CodedSongs,
        prior: PriorConfig,
        vqvae: VQVAEConfig,
        vocabulary: Vocabulary,
        settings: WindowSettings,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """Look up the labels of all songs.

        Raises:
            DataError: if there is no song that the prior can be trained on.
            ConfigError: for invalid settings.
        """
        self._prior, self._vqvae, self._settings = prior, vqvae, settings
        self._songs: list[tuple[CodedSong, SongLabels]] = []
        skipped: list[SkippedFile] = []
        warnings: dict[str, str] = {}
        for song in songs.songs:
            try:
                labelled = song_labels(song, prior, vqvae, vocabulary)
            except LabelError as error:
                skipped.append(SkippedFile(song.entry.name, str(error)))
                continue
            self._songs.append((song, labelled.labels))
            warnings |= {text: song.entry.name for text in labelled.warnings if text not in warnings}
        self.skipped = (*songs.skipped, *skipped)
        self.warnings = tuple(f"{name}: {text}" for text, name in warnings.items())
        if not self._songs:
            example = f" The first, {self.skipped[0].name}: {self.skipped[0].reason}" if self.skipped else ""
            raise DataError(f"None of {len(self.skipped)} songs can be used to train prior {prior.level}.{example}")
        lengths = [song.lengths[prior.level] for song, _ in self._songs]
        self._upsampling = prior.conditioner.upsampling if prior.conditioner else 1
        self._coverage = Coverage(lengths, prior.window, self._upsampling)
        self._order = ExampleOrder(self._coverage.count, settings.batch, settings.seed, rank, workers)

    @property
    def songs(self) -> tuple[CodedSong, ...]:
        """The songs that the windows come from; the others are in `skipped`."""
        return tuple(song for song, _ in self._songs)

    @property
    def batches_per_epoch(self) -> int:
        """Number of steps in which all processes together see every part of every song."""
        return self._order.batches_per_epoch

    def batch(self, step: int) -> WindowBatch:
        """Return the windows of a step; may be called from several threads.

        `codes` `[B, n]` are raw codes of the prior's level. `upper_codes` `[B, n / f]`, for upsamplers only, are the
        codes of the level above for the same part of the song. The other arrays are those of `WindowLabels`. Raises
        `DataError` if codes cannot be read.
        """
        numbers = self._order.numbers(step)
        indices = self._order.examples(numbers)
        dice = (Dice(self._settings.seed, Stream.EXAMPLE, number) for number in numbers)
        return self._stacked(
            [self._coverage.place(int(index), one.uniform()) for index, one in zip(indices, dice, strict=True)]
        )

    def evaluation_windows(self, count: int) -> list[tuple[CodedSong, WindowBatch]]:
        """Read up to `count` of the consecutive windows of all songs, evenly spread: each a batch of 1, with its song.

        The windows depend on neither seed nor process. Raises `DataError` if codes cannot be read.
        """
        window = self._prior.window
        places = [
            Place(number, start)
            for number, (song, _) in enumerate(self._songs)
            for start in range(0, song.lengths[self._prior.level] - window + 1, window)
        ]
        chosen = [places[index] for index in spread_indices(len(places), count)]
        return [(self._songs[place.song][0], self._stacked([place])) for place in chosen]

    def _stacked(self, places: Sequence[Place]) -> WindowBatch:
        rows = [self._window(place) for place in places]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _window(self, place: Place) -> dict[str, npt.NDArray[np.int64]]:
        prior, factor = self._prior, self._upsampling
        song, labels = self._songs[place.song]
        end = place.start + prior.window
        arrays = {"codes": song.codes(prior.level, place.start, end)}
        if prior.conditioner:
            arrays["upper_codes"] = song.codes(prior.level + 1, place.start // factor, end // factor)
        hop = self._vqvae.hop_length(prior.level)
        return arrays | window_labels(prior, self._vqvae.sample_rate, hop, labels, place.start).arrays()


def song_labels(song: CodedSong, prior: PriorConfig, vqvae: VQVAEConfig, vocabulary: Vocabulary) -> LabelledSong:
    """Return the labels of a song; raise `LabelError` if the prior cannot be trained on it."""
    seconds = song.samples / vqvae.sample_rate
    if song.lengths[prior.level] < prior.window:
        needed = prior.window * vqvae.hop_length(prior.level) / vqvae.sample_rate
        raise LabelError(f"too short, {seconds:.2f} s for windows of {needed:.2f} s")
    limits = duration_limits(prior, vqvae.sample_rate)
    if limits and not limits.shortest <= song.samples <= limits.longest:
        low, high = limits.seconds
        raise LabelError(f"{seconds:.2f} s long, but the model supports songs of {low:.2f} s to {high:.2f} s")
    entry = song.entry
    genres = _fitting(prior.labels, entry.genres) if prior.labels else entry.genres
    text = SongText(entry.artist, " ".join(genres), entry.lyrics)
    labelled = label_song(prior, vocabulary, text, total_length=song.samples)
    if left_out := entry.genres[len(genres) :]:
        warning = f"The song has more genres than the model takes; left out: {', '.join(left_out)}."
        return replace(labelled, warnings=(*labelled.warnings, warning))
    return labelled


def _fitting(labels: LabelConfig, genres: tuple[str, ...]) -> tuple[str, ...]:
    """Return as many of a song's first genres as fit the model's genre slots: one name, or a bag of words."""
    if labels.rules is LabelRules.NAMES:
        return genres[:1]
    count = len(genres)
    while len(normalise(" ".join(genres[:count])).split("_")) > labels.genre_slots:
        count -= 1
    return genres[:count]
