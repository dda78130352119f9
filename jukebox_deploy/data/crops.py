"""Batches of crops of songs, for training the VQ-VAE (specification section 18).

A batch is a pure function of seed, step and process, so no state has to be saved to resume a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.audio_files import Audio, read_stretch
from jukebox_deploy.data.catalogue import Catalogue, SkippedFile, SongEntry
from jukebox_deploy.data.coverage import Coverage
from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.order import ExampleOrder
from jukebox_deploy.errors import AudioError, ConfigError, DataError

_TRIES = 32
"""Maximum number of other crops to try in place of one that is silent or cannot be read."""

_SILENCE = 2.0**-15
"""Largest peak of a silent crop: one quantisation step of 16-bit audio."""


@dataclass(frozen=True)
class CropSettings:
    """Settings of the batches of crops."""

    sample_rate: int
    length: int  # samples per crop
    batch: int  # crops per step and process
    seed: int
    shift: bool = True  # shift each crop at random by up to half its length
    unit: int = 1  # samples; crops begin at multiples of it

    def __post_init__(self) -> None:
        for name in ("sample_rate", "length", "unit"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name.replace('_', ' ')}: expected 1 or more, found {getattr(self, name)}.")
        if self.length % self.unit:
            raise ConfigError(f"length: expected a multiple of the unit {self.unit}, found {self.length}.")


class AudioCrops:
    """All crops of a catalogue in random order; every epoch covers every song that is long enough."""

    def __init__(self, catalogue: Catalogue, settings: CropSettings, rank: int = 0, workers: int = 1) -> None:
        """Select the songs; raise `DataError` if none is as long as a crop, `ConfigError` for invalid settings."""
        self._settings = settings
        lengths = {song: song.samples_at(settings.sample_rate) for song in catalogue.songs}
        self._songs = [song for song, length in lengths.items() if length >= settings.length]
        self._skipped = {
            song.name: SkippedFile(song.name, _too_short(song, settings))
            for song, length in lengths.items()
            if length < settings.length
        }
        if not self._songs:
            seconds = settings.length / settings.sample_rate
            raise DataError(
                f"{catalogue.folder}: none of {len(lengths)} songs is as long as a crop of {seconds:.2f} s; "
                "make crops shorter or add songs."
            )
        self._coverage = Coverage([lengths[song] for song in self._songs], settings.length, settings.unit)
        self._order = ExampleOrder(self._coverage.count, settings.batch, settings.seed, rank, workers)

    @property
    def batches_per_epoch(self) -> int:
        """Number of steps in which all processes together see every crop."""
        return self._order.batches_per_epoch

    @property
    def skipped(self) -> tuple[SkippedFile, ...]:
        """Songs that are shorter than a crop, and those that could not be read so far."""
        return tuple(self._skipped.values())

    def batch(self, step: int) -> npt.NDArray[np.float32]:
        """Return the crops of a step, float32 `[B, 1, T]`; may be called from several threads.

        A crop that is silent or cannot be read is replaced by another random one. Raises `DataError` if none of many
        can be read.
        """
        numbers = self._order.numbers(step)
        crops = [
            self._crop(number, int(index)) for number, index in zip(numbers, self._order.examples(numbers), strict=True)
        ]
        return np.stack(crops)[:, None]

    def _crop(self, number: int, index: int) -> Audio:
        silent: Audio | None = None
        failure: AudioError | None = None
        for attempt in range(1 + _TRIES):
            dice = Dice(self._settings.seed, Stream.EXAMPLE, number, attempt)
            place = dice.whole(0, self._coverage.count - 1)
            try:
                crop = self._read(place if attempt else index, dice)
            except AudioError as error:
                failure = error
                continue
            if np.abs(crop).max() > _SILENCE:
                return crop
            silent = crop
        if silent is not None:
            return silent
        raise DataError(f"None of {1 + _TRIES} crops could be read. The last failure: {failure}") from failure

    def _read(self, index: int, dice: Dice) -> Audio:
        settings = self._settings
        place = self._coverage.place(index, dice.uniform() if settings.shift else None)
        song = self._songs[place.song]
        try:
            return read_stretch(song.path, settings.sample_rate, place.start, settings.length)
        except AudioError as error:
            self._skipped.setdefault(song.name, SkippedFile(song.name, str(error)))
            raise


def _too_short(song: SongEntry, settings: CropSettings) -> str:
    return f"too short, {song.seconds:.2f} s for crops of {settings.length / settings.sample_rate:.2f} s"
