"""Conversion of a song's labels to the arrays that condition one window (specification section 11, "Label rows")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jukebox_deploy.config import LabelConfig, PriorConfig
from jukebox_deploy.errors import LabelError
from jukebox_deploy.labels.lyrics import LyricAlphabet, LyricWindow, lyric_window
from jukebox_deploy.labels.timing import Stretch, TimingBins, timing_bins
from jukebox_deploy.labels.vocabulary import Vocabulary

NO_GENRE = -1
"""Filler of the genre slots that a song does not use."""


@dataclass(frozen=True)
class SongText:
    """Labels of a song as text, as given by the user."""

    artist: str = ""
    genre: str = ""
    lyrics: str = ""


@dataclass(frozen=True)
class SongLabels:
    """Labels of a song for one prior. Lengths are in samples."""

    total_length: int  # of the whole song, as the model is told it; sampling may stop earlier
    offset: int = 0  # of code 0 within that song
    artist: int = 0
    genres: tuple[int, ...] = ()
    lyric_tokens: tuple[int, ...] = ()  # of the whole song


@dataclass(frozen=True)
class LabelledSong:
    """The labels of a song for one prior, and warnings for the user."""

    labels: SongLabels
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class WindowLabels:
    """Labels of one window. Fields that the prior does not take are `None`."""

    artist: int | None
    genres: npt.NDArray[np.int64] | None  # [genre_slots], unused ones -1
    timing: TimingBins | None
    lyrics: LyricWindow | None

    def arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return the inputs of the graphs `condition` and `lyrics` by name, without their axis `B`.

        `lyric_tokens` is also included if the lyrics share the sequence of the music.
        """
        values = {
            "artist": self.artist,
            "genres": self.genres,
            "total_bin": self.timing and self.timing.total,
            "absolute_bins": self.timing and self.timing.absolute,
            "relative_bins": self.timing and self.timing.relative,
            "lyric_tokens": self.lyrics and self.lyrics.tokens,
        }
        return {name: np.asarray(value, np.int64) for name, value in values.items() if value is not None}


def label_song(
    prior: PriorConfig, vocabulary: Vocabulary, text: SongText, *, total_length: int, offset: int = 0
) -> LabelledSong:
    """Look up a song's names and encode its lyrics for one prior; raise `LabelError` if the prior cannot take them."""
    warnings: list[str] = []
    artist, genres, tokens = 0, (), ()  # type: int, tuple[int, ...], tuple[int, ...]
    if prior.labels:
        names = vocabulary.for_model(prior.labels)
        artist_match, genre_match = names.artist(text.artist), names.genres(text.genre)
        (artist,), genres = artist_match.ids, genre_match.ids
        warnings += [str(unknown) for unknown in (*artist_match.unknown, *genre_match.unknown)]
    if prior.lyrics and text.lyrics:
        alphabet = LyricAlphabet.of(prior.lyrics)
        cleaned = alphabet.clean(text.lyrics)
        tokens = alphabet.encode(cleaned.text)
        warnings += cleaned.warnings()
    return LabelledSong(SongLabels(total_length, offset, artist, genres, tokens), tuple(warnings))


def window_labels(prior: PriorConfig, sample_rate: int, hop_length: int, song: SongLabels, start: int) -> WindowLabels:
    """Compute the labels of the window that starts at code `start` of the prior's level.

    `hop_length` is in samples per code. Raises `LabelError` for ids that the model lacks, and for windows outside the
    song or the model's duration range.
    """
    stretch = Stretch(song.total_length, song.offset + start * hop_length, prior.window * hop_length)
    timing = timing_bins(prior.timing, sample_rate, stretch, prior.window) if prior.timing else None
    artist, genres = _name_ids(prior.labels, song) if prior.labels else (None, None)
    return WindowLabels(artist, genres, timing, _lyrics(prior, song, stretch))


def _name_ids(labels: LabelConfig, song: SongLabels) -> tuple[int, npt.NDArray[np.int64]]:
    if not 0 <= song.artist < labels.artists:
        raise LabelError(f"There is no artist #{song.artist}: the model has #0 to #{labels.artists - 1}.")
    for genre in song.genres:
        if not 0 <= genre < labels.genres:
            raise LabelError(f"There is no genre #{genre}: the model has #0 to #{labels.genres - 1}.")
    if len(song.genres) > labels.genre_slots:
        raise LabelError(f"The song has {len(song.genres)} genres, the model takes at most {labels.genre_slots}.")
    genres = np.full(labels.genre_slots, NO_GENRE, np.int64)
    genres[: len(song.genres)] = song.genres
    return song.artist, genres


def _lyrics(prior: PriorConfig, song: SongLabels, stretch: Stretch) -> LyricWindow | None:
    if prior.lyrics is None:
        return None
    if any(not 0 <= token < prior.lyrics.vocabulary for token in song.lyric_tokens):
        raise LabelError(f"Lyric tokens must be 0 to {prior.lyrics.vocabulary - 1} for this model.")
    return lyric_window(
        song.lyric_tokens,
        prior.lyrics.tokens,
        total_length=stretch.total_length,
        offset=stretch.offset,
        sample_length=stretch.sample_length,
    )
