"""Models and songs so small that they are evaluated in no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import ConditionerConfig, JukeboxConfig, LabelConfig, LabelRules, LyricsConfig, PriorConfig
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary
from tests.data.song_folders import noise, write_sound, write_table
from tests.export import small_models
from tests.export.small_models import VQVAE, separate_lyrics_config, unlabelled_config

RATE = VQVAE.sample_rate
VOCABULARY = Vocabulary(
    {rules: NameLists({"unknown": 0, "ann": 1, "bob": 2}, {"unknown": 0, "folk": 1}) for rules in LabelRules}
)


def joint_lyrics_config() -> JukeboxConfig:
    """Lyrics in front of the music, in one sequence."""
    (prior,) = unlabelled_config().priors
    return JukeboxConfig("joint", VQVAE, (replace(prior, window=32, lyrics=LyricsConfig(tokens=16, vocabulary=80)),))


def upsampler_config() -> JukeboxConfig:
    """An upsampler with labels, and no prior above it."""
    vqvae = replace(VQVAE, downs=(1, 1), strides=(2, 2), multipliers=(1, 1))
    (plain,) = unlabelled_config().priors
    upsampler = replace(
        plain,
        labels=LabelConfig(LabelRules.NAMES, artists=5, genres=4, genre_slots=1),
        conditioner=ConditionerConfig(width=8, depth=1, stages=1, stride=2),
    )
    return JukeboxConfig("upsampler", vqvae, (upsampler,))


CONFIGS = {config.name: config for config in (separate_lyrics_config(), joint_lyrics_config(), upsampler_config())}


def prior_of(config: JukeboxConfig) -> PriorConfig:
    """The only prior."""
    (prior,) = config.priors
    return prior


def write_checkpoint(config: JukeboxConfig, folder: Path, seed: int = 0) -> CheckpointBundle:
    """A checkpoint whose names are those of the songs."""
    return small_models.write_checkpoint(config, folder, seed, VOCABULARY)


def write_songs(folder: Path, count: int = 4) -> Path:
    """Songs of a quarter of a second with labels and lyrics."""
    rows = []
    for number in range(count):
        write_sound(folder / f"{number}.wav", noise(0.25, seed=number, rate=RATE), RATE)
        artist = ("ann", "bob")[number % 2]
        rows.append({"file": f"{number}.wav", "artist": artist, "genres": ["folk"], "lyrics": f"Song {number}, la la"})
    write_table(folder, rows)
    return folder
