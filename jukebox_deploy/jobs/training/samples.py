"""Samples from a prior in training, conditioned on the labels and upper codes of songs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.code_cache import CodedSong
from jukebox_deploy.data.windows import song_labels
from jukebox_deploy.engine import Engine
from jukebox_deploy.jobs.training.sounds import write_sounds
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.conditioning import WindowConditioner
from jukebox_deploy.runtime.decode import Decoder
from jukebox_deploy.runtime.level import LevelSampler, SongLevel
from jukebox_deploy.runtime.slot import WindowConditioning
from jukebox_deploy.runtime.song import SongRequest
from jukebox_deploy.runtime.windows import Window, WindowGeometry, plan_level

_SONGS = 3  # at most
_WINDOWS = 2  # per sample


def write_samples(
    folder: Path, engine: Engine, vocabulary: Vocabulary, songs: Sequence[CodedSong], seed: int = 0
) -> None:
    """Sample two windows for each of the first few songs that are as long, and write the audio and a picture.

    The samples have the labels of the songs and, from an upsampler, their upper codes. The song itself, decoded from
    its own codes of that level, is written beside each. If no song is long enough, nothing is written.

    Args:
        folder: where to write the files.
        engine: an engine with the prior, as its only one, and the VQ-VAE.
        vocabulary: ids of artists and genres.
        songs: songs that the prior can be trained on.
        seed: seed of the samples.

    Raises:
        LabelError: for a song that the prior cannot be conditioned on.
        SamplingError: when a logit is NaN or infinite.
    """
    (prior,) = engine.config.priors
    geometry = WindowGeometry.of(prior)
    total = geometry.window + (_WINDOWS - 1) * geometry.hop
    chosen = [song for song in songs if song.lengths[prior.level] >= total][:_SONGS]
    if not chosen:
        return
    conditioner, decoder = WindowConditioner(engine, prior), Decoder(engine, prior.level)
    sampled: dict[int, np.ndarray] = {}
    levels = [
        SongLevel(
            number,
            SongRequest(seconds=song.samples / engine.config.vqvae.sample_rate, seed=seed, song=number),
            total,
            plan_level(geometry, total),
            np.zeros(0, np.int64),
            _conditioned(conditioner, engine.config, vocabulary, song),
            partial(sampled.__setitem__, number),
        )
        for number, song in enumerate(chosen)
    ]
    for _ in LevelSampler(engine.prior_session(prior.level, len(chosen)), prior).run(levels):
        pass
    for number, song in enumerate(chosen):
        codes = {"song": song.codes(prior.level, 0, total), "sampled": sampled[number]}
        sounds = {title: np.concatenate(list(decoder(c))) for title, c in codes.items()}
        write_sounds(folder, f"song_{number}", sounds, engine.config.vqvae.sample_rate)


def _conditioned(
    conditioner: WindowConditioner, config: JukeboxConfig, vocabulary: Vocabulary, song: CodedSong
) -> Callable[[Window], WindowConditioning]:
    """Return a function that conditions the windows of a song, as in training."""
    (prior,) = config.priors
    labels = song_labels(song, prior, config.vqvae, vocabulary).labels
    upper = song.codes(prior.level + 1) if prior.conditioner else np.zeros(0, np.int64)
    return lambda window: conditioner(window, labels, upper)
