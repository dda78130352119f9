"""Alignment: find the times of a song's words, given the checkpoint that the song was sampled with.

The times are derived from the attention of the top prior, which is run over the song's codes once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.jobs.alignment.attention import (
    ShowWindows,
    alignment_head,
    alignment_windows,
    lyric_alignment,
)
from jukebox_deploy.jobs.alignment.files import ALIGNMENT_FILES, write_alignment
from jukebox_deploy.jobs.alignment.song_alignment import SongAlignment
from jukebox_deploy.jobs.alignment.word_times import Word, lyric_words, sung_words
from jukebox_deploy.jobs.opening.eager import exact_products, load_model, pytorch_threads, require_device
from jukebox_deploy.labels.lyrics import LyricAlphabet
from jukebox_deploy.labels.rows import SongLabels, SongText, label_song
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.runtime.plan import place_in_song
from jukebox_deploy.runtime.sources import read_record_of
from jukebox_deploy.runtime.store import SongRecord, read_codes

Listener = Callable[[str, float, float], None]
"""Called with the name of an activity, the amount done and the total."""


@dataclass(frozen=True)
class AlignRequest:
    """The songs to align, the model, and the device it runs on."""

    checkpoint: Path
    songs: tuple[Path, ...]  # their folders
    out: Path | None = None  # output folder, for a single song; `None`: the song's folder
    precision: Precision = Precision.FP32
    provider: Provider = Provider.CPU  # one of `PYTORCH_PROVIDERS`
    threads: int | None = None  # on a CPU; `None`: PyTorch's default

    def __post_init__(self) -> None:
        if self.out is not None and len(self.songs) != 1:
            raise SamplingError(
                f"{self.out}: a folder for the files of one song, and {len(self.songs)} are given; leave it out, so "
                "that each song's files go into its own."
            )


@dataclass(frozen=True)
class AlignedSong:
    """An aligned song and the folder its alignment was written to."""

    folder: Path
    out: Path
    alignment: SongAlignment

    def to_json(self) -> dict[str, Any]:
        """Return folders, files, words and times as plain data."""
        files = [str(self.out / name) for name in ALIGNMENT_FILES]
        return {"song": str(self.folder), "files": files, **self.alignment.to_json()}


def align_songs(request: AlignRequest, listen: Listener = lambda what, done, total: None) -> tuple[AlignedSong, ...]:
    """Align songs one after the other and write the results; each file is written atomically.

    Raises before anything is written: `ConfigError` for a model without lyrics or alignment layer, `CheckpointError`
    for a folder that is not a checkpoint bundle, `EngineError` for a missing device, `SamplingError` for a song that
    is unfinished, has no lyrics or is from another checkpoint, `LabelError` for lyrics that cannot be read here.
    """
    checkpoint = CheckpointBundle.open(request.checkpoint)
    config = checkpoint.config.prior(checkpoint.config.top_level)
    alignment_head(config)
    require_device(request.provider)
    listen("checking the checkpoint", 0, 1)
    fingerprint = checkpoint.fingerprint()
    listen("checking the checkpoint", 1, 1)
    songs = [_Song.read(folder, checkpoint, fingerprint) for folder in request.songs]
    device = torch.device(str(request.provider))
    with pytorch_threads(request.threads), exact_products(device):
        prior = load_model(checkpoint, config.level, request.precision)
        assert isinstance(prior, Prior)
        prior = prior.to(device)
        return tuple(_align(song, prior, request.out or song.folder, listen) for song in songs)


@dataclass(frozen=True, eq=False)
class _Song:
    """A song read from its folder, and checked."""

    folder: Path
    record: SongRecord
    prior: PriorConfig
    hop_length: int
    sample_rate: int
    codes: np.ndarray  # [T] of the top level
    labels: SongLabels
    words: tuple[Word, ...]
    characters: str  # of the lyrics, as the model reads them

    @classmethod
    def read(cls, folder: Path, checkpoint: CheckpointBundle, fingerprint: str) -> _Song:
        """Read a song. Raises `SamplingError` for one that cannot be aligned."""
        config = checkpoint.config
        prior, vqvae = config.prior(config.top_level), config.vqvae
        record = read_record_of(folder, config.name, fingerprint)
        codes = read_codes(folder, prior.level, vqvae.codebook_size)
        if len(codes) < (total := record.lengths.totals[prior.level]):
            raise SamplingError(
                f"{folder}: the song is not finished, it has {len(codes)} of {total} codes of level {prior.level}; "
                "repeat the command that sampled it, with --resume."
            )
        request = record.request
        length, offset = place_in_song(config, [prior], request, record.lengths)
        text = SongText(request.artist, request.genre, request.lyrics)
        labels = label_song(prior, checkpoint.vocabulary, text, total_length=length, offset=offset).labels
        words, characters = _words_of(prior, request.lyrics)
        if not any(word.first < word.stop for word in words):
            raise SamplingError(f"{folder}: the song has no lyrics that the model knows; choose one that has some.")
        hop = vqvae.hop_length(prior.level)
        return cls(folder, record, prior, hop, vqvae.sample_rate, codes, labels, words, characters)

    def attention(self, model: Prior, show: ShowWindows) -> np.ndarray:
        """Return the attention of the model: `[codes, characters]`."""
        windows = alignment_windows(self.prior, self.sample_rate, self.hop_length, self.labels, len(self.codes))
        return lyric_alignment(model, self.prior, self.codes, windows, len(self.characters), show)

    @property
    def origin(self) -> dict[str, Any]:
        """The song, model, layer and head that the attention is from."""
        layer, head = alignment_head(self.prior)
        return {
            "song": str(self.folder),
            "model": self.record.model,
            "checkpoint": self.record.fingerprint.checkpoint,
            "layer": layer,
            "head": head,
        }


def _words_of(prior: PriorConfig, lyrics: str) -> tuple[tuple[Word, ...], str]:
    """Return the words, and all characters as the model reads them."""
    assert prior.lyrics is not None
    cleaned = LyricAlphabet.of(prior.lyrics).clean(lyrics)
    return lyric_words(lyrics, cleaned.places), cleaned.text


def _align(song: _Song, model: Prior, out: Path, listen: Listener) -> AlignedSong:
    attention = song.attention(model, partial(listen, f"{song.folder}: windows"))
    words, lyrics = sung_words(attention, song.words), song.record.request.lyrics
    alignment = SongAlignment(words, lyrics, song.characters, len(song.codes), song.hop_length, song.sample_rate)
    write_alignment(out, attention, alignment, song.origin, str(song.folder))
    return AlignedSong(song.folder, out, alignment)
