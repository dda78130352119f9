"""The tasks that are timed: each runs one workload on one opened engine, with the same work in every pass."""

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
"""Number of blocks that a pass of the prefill workload processes."""

WINDOWS = 4
"""Number of windows that a pass of the condition workload processes."""


class SlotWindows:
    """A session of a prior whose slots all hold the same random window, with random keys and values in the caches."""

    def __init__(self, engine: Engine, level: int, slots: int) -> None:
        self.session = engine.prior_session(level, slots)
        self.slots = slots
        spec = self.session.spec
        for tensor in spec.tensors:
            if tensor.role is Role.INPUT or tensor.in_place or tensor.name == "codes":
                # Caches are written too: reading pages that were never written costs no memory bandwidth.
                (value,) = random_feed(tensor, spec, engine.config, {"B": 1}, seed=0)
                for slot in range(slots):
                    self.session.write(tensor.name, slot, np.asarray(value))

    def start_at(self, position: int, known_end: int) -> None:
        """Move all slots to a position; the codes before `known_end` count as known."""
        for name, value in (("known_end", known_end), ("position", position)):
            array = np.asarray(value, numpy_dtype(self.session.spec.tensor(name).dtype))
            for slot in range(self.slots):
                self.session.write(name, slot, array)

    def wait(self) -> None:
        """Wait until the device has finished its work, by reading a value that depends on it."""
        self.session.read("position", 0)


class StepTask:
    """Steps of all slots from a position on; a call is one step, a pass is `steps` steps."""

    def __init__(self, windows: SlotWindows, position: int, steps: int) -> None:
        self.calls = steps
        self._windows = windows
        self._position = position

    def rewind(self) -> None:
        """Move all slots back to the first position."""
        self._windows.start_at(self._position, self._position)

    def run(self, calls: int) -> None:
        """Run that many steps, and wait until they are done."""
        self._windows.session.step(calls)
        self._windows.wait()


class PrefillTask:
    """Prefill of all slots from the start of a block on; a call is one block, a pass is `PREFILL_BLOCKS` blocks."""

    def __init__(self, windows: SlotWindows, position: int, block_length: int) -> None:
        self.calls = PREFILL_BLOCKS
        self._windows = windows
        self._position = position
        self._end = position + PREFILL_BLOCKS * block_length

    def rewind(self) -> None:
        """Move all slots back to the first block."""
        self._windows.start_at(self._position, self._end)

    def run(self, calls: int) -> None:
        """Prefill that many blocks of all slots, and wait until they are done."""
        for _ in range(calls):
            self._windows.session.prefill(range(self._windows.slots))
        self._windows.wait()


class ConditionTask:
    """The conditioner of a prior; a call is one window, a pass is `WINDOWS` windows."""

    def __init__(self, runner: GraphRunner, config: JukeboxConfig) -> None:
        self.calls = WINDOWS
        self._runner = runner
        self._feeds = random_feeds(runner.spec, config, {"B": 1}, seed=0)

    def rewind(self) -> None:
        """Do nothing: a pass leaves no state."""

    def run(self, calls: int) -> None:
        """Compute the conditioning of one window that many times."""
        for _ in range(calls):
            self._runner(self._feeds)


class DecodeTask:
    """Decoding of random codes in chunks, as songs are decoded; a call decodes all `codes` codes of a level."""

    calls = 1

    def __init__(self, engine: OpenedGraphs, level: int, codes: int) -> None:
        self._engine = engine
        self._level = level
        self._codes = np.random.default_rng(0).integers(0, engine.config.vqvae.codebook_size, codes)

    def rewind(self) -> None:
        """Do nothing: a pass leaves no state."""

    def run(self, calls: int) -> None:
        """Decode all codes that many times."""
        from jukebox_deploy.runtime.decode import decode_codes

        for _ in range(calls):
            for _ in decode_codes(self._engine, self._level, self._codes):
                pass


class EncodeTask:
    """Encoding of noise in chunks, as prompts are encoded; a call encodes audio of `codes` codes of a level."""

    calls = 1

    def __init__(self, engine: OpenedGraphs, level: int, codes: int) -> None:
        samples = codes * engine.config.vqvae.hop_length(level)
        self._engine = engine
        self._level = level
        self._audio = (0.3 * np.random.default_rng(0).standard_normal(samples, np.float32)).clip(-1, 1)

    def rewind(self) -> None:
        """Do nothing: a pass leaves no state."""

    def run(self, calls: int) -> None:
        """Encode the audio that many times."""
        from jukebox_deploy.runtime.decode import encode_audio

        for _ in range(calls):
            encode_audio(self._engine, self._level, self._audio)


class SongTask:
    """Sampling of whole songs, all levels and the decoding of the lowest one; a call samples all songs.

    The songs of `seconds` seconds each share the slots, and are written below `folder`.
    """

    calls = 1

    def __init__(self, engine: OpenedGraphs, slots: int, songs: int, seconds: float, folder: Path) -> None:
        self._engine = engine
        self._slots = slots
        self._songs = songs
        self._seconds = seconds
        self._folder = folder

    def rewind(self) -> None:
        """Delete the songs of the previous pass."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, calls: int) -> None:
        """Sample all songs once; `calls` is always 1, because a second time would need a `rewind`."""
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
    """An `Engine` that opens each graph once and keeps it open, so that opening is not part of the timed rounds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runners: dict[tuple[GraphKind, int], GraphRunner] = {}
        self._sessions: dict[tuple[int, int], PriorSession] = {}

    @property
    def config(self) -> JukeboxConfig:
        """The configuration of the model."""
        return self._engine.config

    @property
    def graphs(self) -> Mapping[str, GraphSpec]:
        """The declarations of the graphs, by name."""
        return self._engine.graphs

    @property
    def batch_invariant(self) -> bool:
        """Whether the underlying engine is batch-invariant."""
        return self._engine.batch_invariant

    def runner(self, kind: GraphKind, level: int) -> GraphRunner:
        """Return a stateless graph, which the first call opens."""
        key = (kind, level)
        if key not in self._runners:
            self._runners[key] = self._engine.runner(kind, level)
        return self._runners[key]

    def prior_session(self, level: int, slots: int) -> PriorSession:
        """Return the session of a prior, which the first call opens."""
        key = (level, slots)
        if key not in self._sessions:
            self._sessions[key] = self._engine.prior_session(level, slots)
        return self._sessions[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the graphs are released together with this object."""
