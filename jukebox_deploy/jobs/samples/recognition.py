"""Recognition of artists and genres in samples, by classifiers trained on a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jukebox_deploy.errors import DataError
from jukebox_deploy.jobs.samples.chance import expected_share, permutation_p_value
from jukebox_deploy.jobs.samples.discriminant import LinearDiscriminant, predict_held_out
from jukebox_deploy.jobs.samples.song_clips import Clip
from jukebox_deploy.jobs.samples.sound_features import Numbers, pitch_class_levels

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class HeardClips:
    """Clips and their features."""

    clips: tuple[Clip, ...]
    bands: Numbers  # [N, 32], see `band_levels`
    pitch_classes: Numbers  # [N, 12], see `pitch_class_energies`

    @property
    def pitch_levels(self) -> Numbers:
        """Levels of the pitch classes in decibels `[N, 12]`, see `pitch_class_levels`."""
        return pitch_class_levels(self.pitch_classes)

    def labels(self, kind: str) -> list[str]:
        """The artists (`kind` "artist") or genres ("genre") of the clips."""
        return [getattr(clip, kind) for clip in self.clips]

    @property
    def repeated(self) -> int:
        """The number of clips with exactly the same sound as an earlier one."""
        return len(self.clips) - len(np.unique(np.hstack([self.bands, self.pitch_classes]), axis=0))


@dataclass(frozen=True)
class Interval:
    """An interval of numbers."""

    low: float
    high: float


@dataclass(frozen=True)
class Recognition:
    """How often the recognised label is the requested one, compared with chance."""

    kind: str  # "artist" or "genre"
    names: tuple[str, ...]  # of all labels, in the order of the matrix
    confusion: tuple[tuple[int, ...], ...]  # numbers of samples: rows requested, columns recognised
    accuracy: float
    interval: Interval  # 95 % confidence interval of the accuracy
    chance: float  # accuracy if recognised and requested labels were independent, see `expected_share`
    p_value: float | None  # of at least this accuracy by chance; `None` if only one label is requested
    corpus_accuracy: float  # on held-out songs of the corpus: an upper reference

    @property
    def samples(self) -> int:
        """Samples with a label that the corpus knows."""
        return sum(map(sum, self.confusion))

    @property
    def asked(self) -> tuple[str, ...]:
        """The requested labels of the samples."""
        return tuple(name for name, row in zip(self.names, self.confusion, strict=True) if any(row))


def recognise(
    kind: str, sampled: tuple[Numbers, Sequence[str]], corpus: HeardClips, corpus_features: Numbers
) -> Recognition | None:
    """Recognise labels of samples with a discriminant fitted to a corpus, both as features `[N, F]` and labels.

    Samples with labels that the corpus does not know are left out; `None` if none are left. Raises
    `DataError` if the corpus has a single label, or all its labelled clips are of one song.
    """
    labels = np.array(corpus.labels(kind))
    learnt = labels != ""
    known = [index for index, name in enumerate(sampled[1]) if name and name in labels]
    if not known:
        return None
    groups = [clip.song for clip, wanted in zip(corpus.clips, learnt, strict=True) if wanted]
    _require_variety(kind, labels[learnt].tolist(), groups)
    features, names = corpus_features[learnt], labels[learnt].tolist()
    discriminant = LinearDiscriminant.fit(features, names)
    asked, heard = [sampled[1][index] for index in known], discriminant.predict(sampled[0][known])
    held_out = predict_held_out(features, names, _folds(groups))
    return _recognition(kind, discriminant.names, asked, heard, _share_equal(held_out, names))


def _require_variety(kind: str, names: Sequence[str], songs: Sequence[int]) -> None:
    if len(set(names)) < 2 or len(set(songs)) < 2:
        raise DataError(
            f"the corpus has {len(set(names))} {kind}s in {len(set(songs))} songs; to tell {kind}s apart takes two or "
            "more of both."
        )


def _folds(songs: Sequence[int]) -> list[int]:
    """Assign each clip to one of a few folds; clips of the same song get the same fold."""
    ordered = sorted(set(songs))
    return [ordered.index(song) % _FOLDS for song in songs]


def _recognition(
    kind: str, names: tuple[str, ...], asked: Sequence[str], heard: Sequence[str], corpus_accuracy: float
) -> Recognition:
    from scipy.stats import binomtest

    matrix = np.zeros((len(names), len(names)), int)
    for one, other in zip(asked, heard, strict=True):
        matrix[names.index(one), names.index(other)] += 1
    test = binomtest(int(matrix.trace()), len(asked))
    both_sides = test.proportion_ci(0.95)
    return Recognition(
        kind=kind,
        names=names,
        confusion=tuple(map(tuple, matrix.tolist())),
        accuracy=float(test.statistic),
        interval=Interval(float(both_sides.low), float(both_sides.high)),
        chance=expected_share(asked, heard),
        p_value=permutation_p_value(asked, heard),
        corpus_accuracy=corpus_accuracy,
    )


def _share_equal(one: Sequence[str], other: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
