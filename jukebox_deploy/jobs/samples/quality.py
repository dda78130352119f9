"""Evaluation of samples: do they have the requested artist, genre and scale, judged by a corpus?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jukebox_deploy.data.audio_files import Audio
from jukebox_deploy.data.catalogue import Catalogue, read_catalogue, songs_digest
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import EngineError, SamplingError
from jukebox_deploy.jobs.evaluation.reconstruction import reconstructed
from jukebox_deploy.jobs.samples.recognition import HeardClips, Recognition, recognise
from jukebox_deploy.jobs.samples.scale_shares import ScaleShares, compare_scale_shares
from jukebox_deploy.jobs.samples.song_clips import Clip, ClipFormat, corpus_clips, sampled_clips, sampled_levels
from jukebox_deploy.jobs.samples.sound_features import Numbers, band_levels, pitch_class_energies
from jukebox_deploy.listing import words_of
from jukebox_deploy.threads import map_in_threads

CORPUS_CLIPS = 600
"""Number of corpus clips to learn from: about twenty per feature."""

_THREADS = 2  # decoding and transforms release Python's global lock

Listener = Callable[[str, int, int], None]
"""Called with the name of an activity, the number of clips done and the total."""


@dataclass(frozen=True)
class SampleQuality:
    """The result for the samples of a level."""

    level: int
    form: ClipFormat
    sampled: tuple[Clip, ...]
    corpus: tuple[Clip, ...]
    recognitions: tuple[Recognition, ...]  # of artists and genres, if the samples have any
    scale: ScaleShares | None  # for genres of the synthesized corpus
    corpus_digest: str  # see `songs_digest`
    notes: tuple[str, ...] = ()  # what limits the conclusions

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "level": self.level,
            "sample_rate": self.form.rate,
            "seconds": self.form.seconds,
            "samples": len(self.sampled),
            "corpus_clips": len(self.corpus),
            "corpus_songs": len({clip.song for clip in self.corpus}),
            "corpus_digest": self.corpus_digest,
            "notes": list(self.notes),
            "recognitions": [{**asdict(entry), "samples": entry.samples} for entry in self.recognitions],
            "scale": None if self.scale is None else asdict(self.scale),
        }


@dataclass(frozen=True)
class JudgeRequest:
    """The samples to evaluate, and the corpus to compare them with."""

    songs: Path  # a folder of song folders
    corpus: Path
    levels: tuple[int, ...] = ()  # empty: all levels with sound files
    clips: int = CORPUS_CLIPS  # approximate number of corpus clips
    codec: Engine | None = None  # a VQ-VAE to encode and decode corpus clips with, as samples are
    threads: int = _THREADS  # for reading clips and extracting features


def judge_samples(
    request: JudgeRequest, listen: Listener = lambda what, done, total: None
) -> tuple[SampleQuality, ...]:
    """Evaluate songs, level by level, against a corpus.

    Raises:
        SamplingError: if there are no songs to evaluate, or none of their labels is in the corpus.
        AudioError: for sounds that are too short, or cannot be read.
        DataError: for a folder without a corpus, or one too small to learn from.
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
            # PyTorch parallelises each call; two concurrent calls would compete for its threads.
            heard[key] = _hear(
                chosen, read, form, partial(listen, "clips of the corpus"), 1 if request.codec else request.threads
            )
        judged.append(_judge(level, form, samples, heard[key], catalogue))
    return tuple(judged)


def _hop(codec: Engine | None) -> int:
    """Return the spacing in samples of clip starts, which lie where codes of all levels begin."""
    return 1 if codec is None else codec.config.vqvae.hop_lengths[-1]


_Reader = Callable[[Clip, ClipFormat], Audio]


def _reader(codec: Engine | None, level: int, form: ClipFormat) -> _Reader:
    """Return a function that reads clips of the corpus."""
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
        names = sorted({name for kind in ("artist", "genre") for name in samples.labels(kind) if name})
        asked = words_of(names) or "no artist and no genre"
        raise SamplingError(
            f"level {level}: there is nothing to judge: the samples ask for {asked}, and "
            f"{catalogue.folder} has none of them. Sample with names of the corpus."
        )
    notes = tuple(_notes(samples, found))
    return SampleQuality(level, form, samples.clips, corpus.clips, found, scale, songs_digest(catalogue.songs), notes)


def _notes(samples: HeardClips, recognitions: Sequence[Recognition]) -> Iterator[str]:
    if repeated := samples.repeated:
        yield (
            f"{repeated} of {len(samples.clips)} samples sound exactly like an earlier one; intervals and p-values "
            "count them as independent, so they say too much"
        )
    for entry in recognitions:
        if entry.p_value is None:
            yield (
                f"all {entry.samples} samples ask for the {entry.kind} {entry.asked[0]!r}, so it cannot be tested "
                "whether they sound like it because of the request; ask for others too"
            )
