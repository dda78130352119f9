"""The songs that models are evaluated on: pieces of sound, and windows of codes with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.audio_files import Audio, read_stretch
from jukebox_deploy.data.catalogue import Catalogue, read_catalogue
from jukebox_deploy.data.code_cache import CodedSongs
from jukebox_deploy.data.coverage import spread_indices
from jukebox_deploy.data.windows import CodeWindows, WindowBatch, WindowSettings
from jukebox_deploy.errors import DataError
from jukebox_deploy.jobs.evaluation.code_frequencies import FrequencyScore, score_by_frequency
from jukebox_deploy.labels.vocabulary import Vocabulary

PIECE_SECONDS = 5.0
"""Approximate length of the piece of sound taken from a song."""


@dataclass(frozen=True)
class DataChoice:
    """Which songs to evaluate on, and how much of them."""

    folder: Path
    metadata: Path | None = None  # table of the songs, if it is not in their folder
    held_out: bool = True  # only songs held out from training
    train_fraction: float = 0.9  # as given to training
    windows: int = 32  # for each prior
    coded_songs: int = 8  # to take windows from: encoding a song takes longer than scoring its windows
    seconds: float = 60.0  # of sound for each level

    def songs(self) -> Catalogue:
        """Return the songs. Raises `DataError` if there are none, or none are held out."""
        catalogue = read_catalogue(self.folder, None, self.metadata)
        if not catalogue.songs:
            first, count = catalogue.skipped[0], len(catalogue.skipped)
            raise DataError(
                f"{self.folder}: none of {count} files can be used; the first, {first.name}: {first.reason}."
            )
        chosen = catalogue.split(self.train_fraction)[1] if self.held_out else catalogue
        if not chosen.songs:
            raise DataError(
                f"{self.folder}: of {len(catalogue.songs)} songs none is held out; evaluate on --all of them, or give "
                "more songs."
            )
        return chosen


def pieces_of_sound(songs: Catalogue, config: JukeboxConfig, seconds: float) -> Iterator[Audio]:
    """Yield pieces from the middles of songs, about `seconds` in all, in whole top-level codes; float32 `[samples]`.

    Raises `DataError` if all these songs are shorter than a code, `AudioError` for files that cannot be read.
    """
    vqvae = config.vqvae
    hop, left = vqvae.hop_length(vqvae.levels - 1), seconds * vqvae.sample_rate
    lengths = {song: song.samples_at(vqvae.sample_rate) // hop * hop for song in songs.songs}
    chosen = some_songs(songs, max(1, round(seconds / PIECE_SECONDS))).songs
    if not any(lengths[song] for song in chosen):
        raise DataError(f"{songs.folder}: no song is as long as one code of the top level.")
    for number, song in enumerate(chosen):
        share = left / (len(chosen) - number)  # later songs make up for short ones
        count = min(lengths[song], max(hop, round(share / hop) * hop))
        left -= count
        if count:
            yield read_stretch(song.path, vqvae.sample_rate, (lengths[song] - count) // 2, count)


@dataclass(frozen=True)
class PriorWindows:
    """Windows of one prior, one in each batch, with notes on the songs."""

    batches: Sequence[WindowBatch]
    notes: tuple[str, ...]  # songs that are unusable, and names that the model does not know
    by_frequency: FrequencyScore | None  # `None` for windows of a single song


def evaluation_windows(
    songs: CodedSongs, config: JukeboxConfig, level: int, vocabulary: Vocabulary, count: int
) -> PriorWindows:
    """Return up to `count` windows of a prior, spread evenly over all songs.

    Raises `DataError` if no song has a window or codes cannot be read, `LabelError` for a vocabulary that does not fit
    the prior.
    """
    prior = config.prior(level)
    source = CodeWindows(songs, prior, config.vqvae, vocabulary, WindowSettings(batch=1, seed=0))
    windows = source.evaluation_windows(count)
    left_out = tuple(f"{song.name} is left out: {song.reason}" for song in source.skipped)
    codes = [(song, batch["codes"][0]) for song, batch in windows]
    by_frequency = score_by_frequency(level, songs.songs, codes, config.vqvae.codebook_size)
    return PriorWindows([batch for _, batch in windows], (*left_out, *source.warnings), by_frequency)


def some_songs(songs: Catalogue, count: int) -> Catalogue:
    """Return up to `count` of the songs, spread evenly."""
    return replace(songs, songs=tuple(songs.songs[index] for index in spread_indices(len(songs.songs), count)))
