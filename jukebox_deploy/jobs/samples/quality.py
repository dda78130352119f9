"""Is what a model sings what was asked for? Artist, genre and scale of samples, by what a corpus sounds like."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jukebox_deploy.data.audio_files import Audio
from jukebox_deploy.data.catalogue import Catalogue, read_catalogue
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import DataError, EngineError, SamplingError
from jukebox_deploy.jobs.evaluation.reconstruction import reconstructed
from jukebox_deploy.jobs.samples.discriminant import LinearDiscriminant, predict_held_out
from jukebox_deploy.jobs.samples.scale_shares import ScaleShares, compare_scale_shares
from jukebox_deploy.jobs.samples.song_clips import Clip, ClipFormat, corpus_clips, sampled_clips, sampled_levels
from jukebox_deploy.jobs.samples.sound_features import band_levels, pitch_class_energies, pitch_class_levels
from jukebox_deploy.threads import map_in_threads

CORPUS_CLIPS = 600
"""Clips of the corpus that a judgement learns from: about twenty for each number that describes one."""

_FOLDS = 5
_THREADS = 2  # decoding and transforms release Python's lock

Numbers = npt.NDArray[np.float64]
Listener = Callable[[str, int, int], None]
"""Gets what is being listened to, how many clips are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class HeardClips:
    """Clips and what was heard in them."""

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


@dataclass(frozen=True)
class Interval:
    """From and to."""

    low: float
    high: float


@dataclass(frozen=True)
class Recognition:
    """How often the label that was asked for is the one that is heard."""

    kind: str  # "artist" or "genre"
    names: tuple[str, ...]  # of all labels, in the order of the matrix
    confusion: tuple[tuple[int, ...], ...]  # samples: rows asked for, columns heard
    accuracy: float
    interval: Interval  # of the accuracy, with a certainty of 95 %
    chance: float
    p_value: float  # of so many hits or more by guessing
    corpus_accuracy: float  # for songs of the corpus, by what the other songs teach: what can be reached

    @property
    def samples(self) -> int:
        """Samples with a label that the corpus knows."""
        return sum(map(sum, self.confusion))


@dataclass(frozen=True)
class SampleQuality:
    """What was heard in the samples of a level."""

    level: int
    form: ClipFormat
    sampled: tuple[Clip, ...]
    corpus: tuple[Clip, ...]
    recognitions: tuple[Recognition, ...]  # of artists and genres, as far as the samples have some
    scale: ScaleShares | None  # for genres of the synthesized corpus

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "level": self.level,
            "sample_rate": self.form.rate,
            "seconds": self.form.seconds,
            "samples": len(self.sampled),
            "corpus_clips": len(self.corpus),
            "corpus_songs": len({clip.song for clip in self.corpus}),
            "recognitions": [{**asdict(entry), "samples": entry.samples} for entry in self.recognitions],
            "scale": None if self.scale is None else asdict(self.scale),
        }


@dataclass(frozen=True)
class JudgeRequest:
    """What to listen to."""

    songs: Path  # a folder of song folders
    corpus: Path
    levels: tuple[int, ...] = ()  # empty: all that the songs were decoded from
    clips: int = CORPUS_CLIPS  # of the corpus, about
    codec: Engine | None = None  # a VQ-VAE that the corpus's clips go through, as samples do
    threads: int = _THREADS  # that listen


def judge_samples(
    request: JudgeRequest, listen: Listener = lambda what, done, total: None
) -> tuple[SampleQuality, ...]:
    """Listen to songs, level by level, and to a corpus.

    Raises:
        SamplingError: if there are no songs to judge, or their labels are none of the corpus's.
        AudioError: for sounds that are too short, or cannot be read.
        DataError: for a corpus that is none, or has too little to learn from.
        EngineError: for a codec that does not fit the songs.
    """
    levels = request.levels or sampled_levels(request.songs)
    catalogue = read_catalogue(request.corpus)
    heard: dict[Hashable, HeardClips] = {}
    judged = []
    for level in levels:
        form, clips = sampled_clips(request.songs, level)
        samples = _hear(clips, Clip.read, form, partial(listen, f"clips of samples, level {level}"), request.threads)
        key = form if request.codec is None else (form, level)
        if key not in heard:
            chosen = corpus_clips(catalogue, form, request.clips, _hop(request.codec))
            read = _reader(request.codec, level, form)
            # PyTorch divides one call among its threads; two calls at a time would fight for them.
            heard[key] = _hear(
                chosen, read, form, partial(listen, "clips of the corpus"), 1 if request.codec else request.threads
            )
        judged.append(_judge(level, form, samples, heard[key], catalogue))
    return tuple(judged)


def _hop(codec: Engine | None) -> int:
    """Samples between the places where a clip may begin: where codes of all levels do."""
    return 1 if codec is None else codec.config.vqvae.hop_length(codec.config.vqvae.levels - 1)


_Reader = Callable[[Clip, ClipFormat], Audio]


def _reader(codec: Engine | None, level: int, form: ClipFormat) -> _Reader:
    """How clips of the corpus are read."""
    if codec is None:
        return Clip.read
    if codec.config.vqvae.sample_rate != form.rate or level >= codec.config.vqvae.levels:
        raise EngineError(
            f"the codec works at {codec.config.vqvae.sample_rate} Hz and has {codec.config.vqvae.levels} levels; the "
            f"songs are at {form.rate} Hz and level {level}. Give the bundle that they were sampled with."
        )
    return lambda clip, form: reconstructed(codec, level, clip.read(form))


def _hear(
    clips: tuple[Clip, ...],
    read: _Reader,
    form: ClipFormat,
    listen: Callable[[int, int], None],
    threads: int,
) -> HeardClips:
    def features(clip: Clip) -> tuple[Numbers, Numbers]:
        audio = read(clip, form)
        return band_levels(audio, form.rate), pitch_class_energies(audio, form.rate)

    rows = []
    with closing(map_in_threads(features, clips, threads=threads, ahead=threads)) as results:
        for row in results:
            rows.append(row)
            listen(len(rows), len(clips))
    bands, pitch_classes = zip(*rows, strict=True)
    return HeardClips(clips, np.stack(bands), np.stack(pitch_classes))


def _judge(
    level: int, form: ClipFormat, samples: HeardClips, corpus: HeardClips, catalogue: Catalogue
) -> SampleQuality:
    recognitions = (
        recognise("artist", (samples.bands, samples.labels("artist")), corpus, corpus.bands),
        recognise("genre", (samples.pitch_levels, samples.labels("genre")), corpus, corpus.pitch_levels),
    )
    genres = samples.labels("genre")
    scale = compare_scale_shares((samples.pitch_classes, genres), (corpus.pitch_classes, corpus.labels("genre")), form)
    found = tuple(entry for entry in recognitions if entry is not None)
    if not found and scale is None:
        asked = sorted({name for kind in ("artist", "genre") for name in samples.labels(kind) if name})
        raise SamplingError(
            f"level {level}: there is nothing to judge: the samples ask for {asked or 'no artist and no genre'}, and "
            f"{catalogue.folder} has none of them. Sample with names of the corpus."
        )
    return SampleQuality(level, form, samples.clips, corpus.clips, found, scale)


def recognise(
    kind: str, sampled: tuple[Numbers, Sequence[str]], corpus: HeardClips, corpus_features: Numbers
) -> Recognition | None:
    """What a discriminant that learns the labels of a corpus hears in samples, given as features `[N, F]` and labels.

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
    """A number of a few for each clip; clips of one song have the same."""
    ordered = sorted(set(songs))
    return [ordered.index(song) % _FOLDS for song in songs]


def _recognition(
    kind: str, names: tuple[str, ...], asked: Sequence[str], heard: Sequence[str], corpus_accuracy: float
) -> Recognition:
    from scipy.stats import binomtest

    matrix = np.zeros((len(names), len(names)), int)
    for one, other in zip(asked, heard, strict=True):
        matrix[names.index(one), names.index(other)] += 1
    chance = 1 / len(names)
    test = binomtest(int(matrix.trace()), len(asked), chance, alternative="greater")
    both_sides = binomtest(int(matrix.trace()), len(asked)).proportion_ci(0.95)
    return Recognition(
        kind=kind,
        names=names,
        confusion=tuple(map(tuple, matrix.tolist())),
        accuracy=float(test.statistic),
        interval=Interval(float(both_sides.low), float(both_sides.high)),
        chance=chance,
        p_value=float(test.pvalue),
        corpus_accuracy=corpus_accuracy,
    )


def _share_equal(one: Sequence[str], other: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
