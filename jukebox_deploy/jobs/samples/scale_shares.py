"""Share of sound energy on a genre's scale: in samples, in the corpus, and by chance.

A genre of the synthesized corpus has a scale and two tonics. A model is conditioned on the genre, not on the tonic, so
the better-matching tonic of each clip is used, for samples and for everything they are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from jukebox_deploy.data.dice import Dice, Stream
from jukebox_deploy.data.synthesis.genres import GENRES, Genre
from jukebox_deploy.data.synthesis.scales import OCTAVE
from jukebox_deploy.jobs.samples.song_clips import ClipFormat
from jukebox_deploy.jobs.samples.sound_features import Numbers, pitch_class_energies

_NOISES, _RANDOM_ENERGIES = 32, 4096
_CERTAINTY = 1.96  # standard errors on either side of a mean, for 95 % confidence


@dataclass(frozen=True)
class MeanShare:
    """The mean of a share over clips, with the half-width of its 95 % confidence interval."""

    mean: float
    error: float | None  # `None` for a single clip

    @classmethod
    def of(cls, shares: Numbers) -> Self:
        """Compute the mean and its error from shares `[N]`."""
        count = len(shares)
        error = _CERTAINTY * float(shares.std(ddof=1)) / math.sqrt(count) if count > 1 else None
        return cls(float(shares.mean()), error)


@dataclass(frozen=True)
class ScaleShares:
    """Shares of the energy between 100 and 700 Hz that lie on the pitch classes of a scale.

    The references are weighted by how often each genre is requested in the samples.
    """

    samples: int
    asked: MeanShare  # of samples, on the scale of the requested genre
    others: MeanShare  # of the same samples, the mean over the scales of all other genres
    margin: MeanShare  # asked less others, sample by sample
    corpus: float  # of corpus songs, on the scale of their own genre: an upper reference
    corpus_others: float  # of the same songs, the mean over the scales of all other genres
    noise: float  # of white noise: chance level
    random: float  # of random energies: chance level for sounds of few pitches


def scale_share(energies: Numbers, genre: Genre) -> Numbers:
    """Return the share of energies `[N, 12]` on a genre's scale, for the better of its tonics: `[N]`."""
    by_tonic = [energies[:, list(genre.scale.pitch_classes(tonic))].sum(axis=1) for tonic in genre.tonics]
    share: Numbers = np.max(by_tonic, axis=0)
    return share


def own_and_other_shares(energies: Numbers, genres: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return shares of energies `[N, 12]` on the scale of each row's genre, and means over other genres: `[N]` each.

    Genres are names in `GENRES`.
    """
    shares = np.stack([scale_share(energies, genre) for genre in GENRES.values()], axis=1)
    own = shares[np.arange(len(shares)), [list(GENRES).index(name) for name in genres]]
    return own, (shares.sum(axis=1) - own) / (len(GENRES) - 1)


def compare_scale_shares(
    sampled: tuple[Numbers, Sequence[str]], corpus: tuple[Numbers, Sequence[str]], form: ClipFormat
) -> ScaleShares | None:
    """Compare samples with songs, each given as energies `[N, 12]` and genres.

    Clips of unknown genres are left out; `None` if none are left on either side.
    """
    energies, asked_genres = _of_known_genres(*sampled)
    corpus_energies, corpus_genres = _of_known_genres(*corpus)
    if not asked_genres or not corpus_genres:
        return None
    asked, others = own_and_other_shares(energies, asked_genres)
    corpus_own, corpus_others = own_and_other_shares(corpus_energies, corpus_genres)
    names = np.array(corpus_genres)

    def as_asked(shares: Numbers) -> float:
        """Average the corpus's mean of each genre over the samples' genres; its overall mean for a missing genre."""
        means = {name: float(shares[names == name].mean()) for name in set(corpus_genres)}
        return float(np.mean([means.get(name, float(shares.mean())) for name in asked_genres]))

    return ScaleShares(
        samples=len(asked),
        asked=MeanShare.of(asked),
        others=MeanShare.of(others),
        margin=MeanShare.of(asked - others),
        corpus=as_asked(corpus_own),
        corpus_others=as_asked(corpus_others),
        noise=_mean_share(_noise_energies(form), asked_genres),
        random=_mean_share(_random_energies(), asked_genres),
    )


def _of_known_genres(energies: Numbers, genres: Sequence[str]) -> tuple[Numbers, list[str]]:
    known = [index for index, name in enumerate(genres) if name in GENRES]
    return energies[known], [genres[index] for index in known]


def _mean_share(energies: Numbers, genres: Sequence[str]) -> float:
    means = {name: float(scale_share(energies, GENRES[name]).mean()) for name in set(genres)}
    return float(np.mean([means[name] for name in genres]))


def _noise_energies(form: ClipFormat) -> Numbers:
    """Return the energies of clips of white noise, `[N, 12]`."""
    noises = (Dice(0, Stream.SOUND, number).noise(form.length) for number in range(_NOISES))
    return np.stack([pitch_class_energies(noise, form.rate) for noise in noises])


def _random_energies() -> Numbers:
    """Return random energies, uniformly distributed over all that add up to one, `[N, 12]`."""
    uniform = 0.5 + 0.5 * Dice(0, Stream.SOUND, _NOISES).noise(_RANDOM_ENERGIES * OCTAVE)
    waits = -np.log1p(-uniform).reshape(_RANDOM_ENERGIES, OCTAVE)
    energies: Numbers = waits / waits.sum(axis=1, keepdims=True)
    return energies
