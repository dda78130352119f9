"""What is timed: each task does one workload on one opened engine, always the same work."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Role, numpy_dtype
from jukebox_deploy.engine import Engine, GraphRunner, PriorSession
from jukebox_deploy.export.feeds import random_feed, random_feeds

PREFILL_BLOCKS = 2
"""Blocks of a prefill's round."""

WINDOWS = 4
"""Windows of a conditioner's round."""


class SlotWindows:
    """A prior's session, every slot filled with the same random window; caches of earlier codes are random."""

    def __init__(self, engine: Engine, level: int, slots: int) -> None:
        self.session = engine.prior_session(level, slots)
        self.slots = slots
        spec = self.session.spec
        for tensor in spec.tensors:
            if tensor.role is Role.INPUT or tensor.in_place or tensor.name == "codes":
                # Caches too: memory that nobody wrote to is read for nothing.
                (value,) = random_feed(tensor, spec, engine.config, {"B": 1}, seed=0)
                for slot in range(slots):
                    self.session.write(tensor.name, slot, np.asarray(value))

    def start_at(self, position: int, known_end: int) -> None:
        """Put all slots at a position; codes below `known_end` are given ones."""
        for name, value in (("known_end", known_end), ("position", position)):
            array = np.asarray(value, numpy_dtype(self.session.spec.tensor(name).dtype))
            for slot in range(self.slots):
                self.session.write(name, slot, array)

    def wait(self) -> None:
        """A device that works by itself is done when this is here."""
        self.session.read("position", 0)


class StepTask:
    """Steps of all slots, from one position on."""

    def __init__(self, windows: SlotWindows, position: int, steps: int) -> None:
        self.calls = steps
        self._windows = windows
        self._position = position

    def rewind(self) -> None:
        """See `Task`."""
        self._windows.start_at(self._position, self._position)

    def run(self, calls: int) -> None:
        """See `Task`."""
        self._windows.session.step(calls)
        self._windows.wait()


class PrefillTask:
    """Blocks of known codes of all slots, from the start of a block on."""

    def __init__(self, windows: SlotWindows, position: int, block_length: int) -> None:
        self.calls = PREFILL_BLOCKS
        self._windows = windows
        self._position = position
        self._end = position + PREFILL_BLOCKS * block_length

    def rewind(self) -> None:
        """See `Task`."""
        self._windows.start_at(self._position, self._end)

    def run(self, calls: int) -> None:
        """See `Task`."""
        for _ in range(calls):
            self._windows.session.prefill(range(self._windows.slots))
        self._windows.wait()


class ConditionTask:
    """The conditioner of a prior, window by window."""

    def __init__(self, runner: GraphRunner, config: JukeboxConfig) -> None:
        self.calls = WINDOWS
        self._runner = runner
        self._feeds = random_feeds(runner.spec, config, {"B": 1}, seed=0)

    def rewind(self) -> None:
        """See `Task`."""

    def run(self, calls: int) -> None:
        """See `Task`."""
        for _ in range(calls):
            self._runner(self._feeds)


class DecodeTask:
    """Codes of a stretch of audio to sound, as songs are decoded: in chunks, as many at once as pay."""

    calls = 1

    def __init__(self, engine: OpenedGraphs, level: int, codes: int) -> None:
        self._engine = engine
        self._level = level
        self._codes = np.random.default_rng(0).integers(0, engine.config.vqvae.codebook_size, codes)

    def rewind(self) -> None:
        """See `Task`."""

    def run(self, calls: int) -> None:
        """See `Task`."""
        from jukebox_deploy.runtime.decode import decode_codes

        for _ in range(calls):
            for _ in decode_codes(self._engine, self._level, self._codes):
                pass


class EncodeTask:
    """A stretch of audio to codes, as prompts are encoded: in chunks, as many at once as pay."""

    calls = 1

    def __init__(self, engine: OpenedGraphs, level: int, codes: int) -> None:
        samples = codes * engine.config.vqvae.hop_length(level)
        self._engine = engine
        self._level = level
        self._audio = (0.3 * np.random.default_rng(0).standard_normal(samples, np.float32)).clip(-1, 1)

    def rewind(self) -> None:
        """See `Task`."""

    def run(self, calls: int) -> None:
        """See `Task`."""
        from jukebox_deploy.runtime.decode import encode_audio

        for _ in range(calls):
            encode_audio(self._engine, self._level, self._audio)


class SongTask:
    """Whole songs from nothing, all levels and sound; the slots share them."""

    calls = 1

    def __init__(self, engine: OpenedGraphs, slots: int, songs: int, seconds: float, folder: Path) -> None:
        self._engine = engine
        self._slots = slots
        self._songs = songs
        self._seconds = seconds
        self._folder = folder

    def rewind(self) -> None:
        """See `Task`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, calls: int) -> None:
        """See `Task`."""
        from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob, SongSampler
        from jukebox_deploy.runtime.song import SongRequest
        from jukebox_deploy.runtime.store import Fingerprint

        requests = [SongRequest(seconds=self._seconds, song=number) for number in range(self._songs)]
        jobs = [SongJob(request, self._folder / str(request.song)) for request in requests]
        sampler = SongSampler(
            self._engine, Fingerprint("benchmark", "benchmark"), options=SamplingOptions(slots=self._slots)
        )
        for _ in sampler.sample(jobs):
            pass


class OpenedGraphs:
    """An engine whose graphs stay open, so that opening them is timed apart."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runners: dict[tuple[GraphKind, int], GraphRunner] = {}
        self._sessions: dict[tuple[int, int], PriorSession] = {}

    @property
    def config(self) -> JukeboxConfig:
        """The model."""
        return self._engine.config

    @property
    def graphs(self) -> Mapping[str, GraphSpec]:
        """The tables."""
        return self._engine.graphs

    @property
    def batch_invariant(self) -> bool:
        """As the engine's."""
        return self._engine.batch_invariant

    def runner(self, kind: GraphKind, level: int) -> GraphRunner:
        """A stateless graph, opened when it is first asked for."""
        key = (kind, level)
        if key not in self._runners:
            self._runners[key] = self._engine.runner(kind, level)
        return self._runners[key]

    def prior_session(self, level: int, slots: int) -> PriorSession:
        """The session of a prior, opened when it is first asked for."""
        key = (level, slots)
        if key not in self._sessions:
            self._sessions[key] = self._engine.prior_session(level, slots)
        return self._sessions[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Graphs are released with this object."""
