"""Sampling of whole songs: every level from the top down, then decoding of the lowest level or of each.

All songs finish one level before the next level begins, so that only one prior is open at a time. The codes of a song
are committed to its folder while it is sampled, so that it can be resumed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jukebox_deploy.contract import GraphKind, find_graph, graph_levels, graph_name
from jukebox_deploy.engine import Engine, prior_graphs, require_graphs
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.audio import SampleFormat, writing_wav
from jukebox_deploy.runtime.conditioning import WindowConditioner
from jukebox_deploy.runtime.decode import Decoder
from jukebox_deploy.runtime.events import DecodeProgress, Event, LevelProgress, SongDecoded, SongWarning
from jukebox_deploy.runtime.lengths import check_limits
from jukebox_deploy.runtime.level import LevelSampler, SongLevel
from jukebox_deploy.runtime.plan import LevelPlan, plan_song
from jukebox_deploy.runtime.slot import WindowConditioning
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from jukebox_deploy.runtime.sources import SongSource, SourceReader
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore, holds_song, read_record
from jukebox_deploy.runtime.windows import Window


@dataclass(frozen=True)
class SongJob:
    """A song to sample and the folder to write it to."""

    request: SongRequest
    folder: Path


@dataclass(frozen=True)
class SamplingOptions:
    """Options of a sampling run.

    None of them changes a song's codes, except `slots` on engines that are not batch-invariant.
    """

    slots: int = 16  # maximum number of songs that are sampled at the same time
    lowest_level: int = 0  # sample down to this level and decode it
    every_level: bool = False  # decode the levels above it too, each as soon as it is sampled
    resume: bool = False  # resume songs that were begun and begin the others; else a begun song is an error
    sample_format: SampleFormat = SampleFormat.FLOAT
    commit_seconds: float = 2.0  # between commits of unfinished windows, longer if they take long; 0: every call

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise SamplingError(f"the number of slots is {self.slots}; give at least 1.")


@dataclass
class _Song:
    """A song being sampled: its folder, its plan, and its codes so far, level 0 first."""

    index: int
    request: SongRequest
    store: SongStore
    lengths: SongLengths
    plans: Mapping[int, LevelPlan]
    codes: list[np.ndarray]


class SongSampler:
    """Sampler of songs with an open engine."""

    def __init__(
        self,
        engine: Engine,
        fingerprint: Fingerprint,
        vocabulary: Vocabulary | None = None,
        options: SamplingOptions | None = None,
    ) -> None:
        self._engine = engine
        self._config = engine.config
        self._fingerprint = fingerprint
        self._vocabulary = vocabulary or Vocabulary()
        self._options = options or SamplingOptions()
        if not 0 <= self._options.lowest_level <= self._config.top_level:
            raise SamplingError(
                f"the model has no level {self._options.lowest_level}; choose 0 to {self._config.top_level} as the "
                "lowest level."
            )

    def sample(self, jobs: Sequence[SongJob]) -> Iterator[Event]:
        """Sample and decode all songs; yield events as they happen, the decoded lowest level last.

        Invalid requests raise `SamplingError`, `LabelError` or `AudioError` before anything is written; an engine that
        lacks the graphs for them raises `EngineError`.
        """
        if not jobs:
            raise SamplingError("there are no songs to sample; give at least one request.")
        self._require_decoders()
        with ExitStack() as stack:
            songs = self._open_songs(jobs, stack)
            for song in songs:
                yield from self._warnings(song)
            for level in range(self._config.top_level, self._options.lowest_level - 1, -1):
                yield from self._sample_level(level, songs)
                if self._options.every_level or level == self._options.lowest_level:
                    decoder = Decoder(self._engine, level)
                    for song in songs:
                        yield from self._decode(level, song, decoder)

    def _require_decoders(self) -> None:
        """Check that the levels can be decoded, before hours are spent on their codes."""
        lowest = self._options.lowest_level
        for level in range(lowest, (self._config.top_level if self._options.every_level else lowest) + 1):
            require_graphs(self._engine, [graph_name(GraphKind.VQVAE_DECODE, level)], f"decoding level {level}")

    def _open_songs(self, jobs: Sequence[SongJob], stack: ExitStack) -> list[_Song]:
        """Check every request, then lock and check every folder, and only then write to any of them."""
        reader = SourceReader(self._engine, self._fingerprint.checkpoint)
        sources = [self._check_source(job, reader) for job in jobs]
        stores = [stack.enter_context(SongStore(job.folder)) for job in jobs]
        known = [source or read_record(store.folder) for source, store in zip(sources, stores, strict=True)]
        fingerprints = self._fingerprints([song.lengths for song in known])
        records = [self._record(*song) for song in zip(jobs, stores, known, fingerprints, strict=True)]
        for record, store, source in zip(records, stores, sources, strict=True):
            if source:
                store.begin(record, source.given)
        return [self._open_song(i, *pair) for i, pair in enumerate(zip(stores, records, strict=True))]

    def _check_source(self, job: SongJob, reader: SourceReader) -> SongSource | None:
        """Check a new song and return its source; return `None` for a song to resume."""
        if holds_song(job.folder):
            if self._options.resume:
                return None
            raise SamplingError(f"{job.folder} already holds a song; resume it, or choose another folder.")
        check_limits(self._config, job.request, self._options.lowest_level)
        source = reader.open(job.request)
        self._plan(job.request, source.lengths)
        return source

    def _fingerprints(self, lengths: Sequence[SongLengths]) -> list[Fingerprint]:
        """Return a fingerprint per song; unless the engine is batch-invariant, it names the song's place in the batch.

        The digest in it covers the slots of every level and the lengths of all songs, which decide which songs are
        computed together.
        """
        if self._engine.batch_invariant:
            return [self._fingerprint] * len(lengths)
        sampled = Counter(level for song in lengths for level in song.levels_to_sample(lowest=0))
        steps = graph_levels(self._engine.graphs, GraphKind.STEP)
        slots = {level: self._slots(level, sampled[level]) for level in steps if sampled[level]}
        digest = hashlib.sha256(repr((slots, lengths)).encode()).hexdigest()[:8]
        batch = f"of {len(lengths)}, {max(slots.values(), default=0)} at a time ({digest})"
        return [replace(self._fingerprint, batch=f"song {i + 1} {batch}") for i in range(len(lengths))]

    def _record(
        self, job: SongJob, store: SongStore, known: SongSource | SongRecord, fingerprint: Fingerprint
    ) -> SongRecord:
        """Return the contents of `song.json`: new for a new song, read and checked for one to resume."""
        if isinstance(known, SongSource):
            return SongRecord(self._config.name, fingerprint, job.request, known.lengths)
        if known.fingerprint.batch != fingerprint.batch and self._is_sampled(store, known.lengths):
            fingerprint = replace(fingerprint, batch=known.fingerprint.batch)
        return store.resume(job.request, fingerprint)

    def _is_sampled(self, store: SongStore, lengths: SongLengths) -> bool:
        """Return whether a begun song has all its codes, so that its place in the batch no longer matters."""
        levels = lengths.levels_to_sample(self._options.lowest_level)
        return all(len(store.codes(level, lengths)) == lengths.totals[level] for level in levels)

    def _open_song(self, index: int, store: SongStore, record: SongRecord) -> _Song:
        codes = [store.codes(level, record.lengths) for level in range(self._config.vqvae.levels)]
        plans = self._plan(record.request, record.lengths)
        return _Song(index, record.request, store, record.lengths, plans, codes)

    def _plan(self, request: SongRequest, lengths: SongLengths) -> Mapping[int, LevelPlan]:
        plans = plan_song(self._config, self._vocabulary, request, lengths, self._options.lowest_level)
        for level in plans:
            require_graphs(self._engine, prior_graphs(self._config.prior(level)), f"sampling level {level}")
        return plans

    def _warnings(self, song: _Song) -> Iterator[SongWarning]:
        """Return the label warnings of all levels, each once."""
        texts = [text for plan in song.plans.values() for text in plan.song.warnings]
        return (SongWarning(song.index, text) for text in dict.fromkeys(texts))

    def _sample_level(self, level: int, songs: Sequence[_Song]) -> Iterator[LevelProgress]:
        """Sample a level of all songs that lack codes there.

        Unless the engine is batch-invariant, finished songs take part as well: the others must be computed in the
        batch in which they began.
        """
        if not (taking_part := [song for song in songs if len(song.codes[level]) < song.lengths.totals[level]]):
            return
        if retrace := not self._engine.batch_invariant:
            taking_part = [song for song in songs if song.lengths.given[level] < song.lengths.totals[level]]
        prior = self._config.prior(level)
        session = self._engine.prior_session(level, self._slots(level, len(taking_part)))
        conditioner = WindowConditioner(self._engine, prior)
        sampler = LevelSampler(session, prior, self._options.commit_seconds, retrace=retrace)
        yield from sampler.run([self._song_level(level, song, conditioner) for song in taking_part])

    def _slots(self, level: int, songs: int) -> int:
        """Return the number of slots: one per song, within the option and the range of the step graph."""
        slots = find_graph(self._engine.graphs, GraphKind.STEP, level).range("B")
        return max(slots.minimum, min(songs, self._options.slots, slots.maximum))

    def _song_level(self, level: int, song: _Song, conditioner: WindowConditioner) -> SongLevel:
        """Return the task of sampling one level of a song."""
        plan = song.plans[level]
        upper_codes = song.codes[level + 1] if level < self._config.top_level else np.zeros(0, np.int64)

        def condition(window: Window) -> WindowConditioning:
            return conditioner(window, plan.song.labels, upper_codes)

        def commit(codes: np.ndarray) -> None:
            song.codes[level] = codes
            song.store.commit(level, codes)

        given, total = song.lengths.given[level], song.lengths.totals[level]
        return SongLevel(song.index, song.request, total, plan.windows, song.codes[level], condition, commit, given)

    def _decode(self, level: int, song: _Song, decoder: Decoder) -> Iterator[DecodeProgress | SongDecoded]:
        """Decode a level of a song to `level_{L}.wav`."""
        vqvae = self._config.vqvae
        path = song.store.folder / f"level_{level}.wav"
        codes = song.codes[level]
        yield DecodeProgress(level, song.index, 0, len(codes))  # so that the first chunk is timed, too
        with writing_wav(path, vqvae.sample_rate, self._options.sample_format) as wav:
            for chunk in decoder(codes):
                wav.write(chunk)
                yield DecodeProgress(level, song.index, wav.samples // vqvae.hop_length(level), len(codes))
        yield SongDecoded(level, song.index, wav.report())
