"""One window of one song in one slot of a prior's session.

A slot goes through three phases. *Prefill* works through the codes that were known when the window
was planned, a block at a time. *Replay* steps over codes which an interrupted run had already
chosen: they are given to the step, which keeps them, so that the same kernels see the same numbers
as in the run that was not interrupted. *Sampling* chooses the rest. The slot counts positions along
with the device, so that nothing is read back between steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.engine import PriorSession
from jukebox_deploy.runtime.song import LevelSettings
from jukebox_deploy.runtime.windows import Window


@dataclass(frozen=True)
class WindowConditioning:
    """What a window is conditioned on, as a slot holds it."""

    lyric_tokens: np.ndarray  # [lyric prefix], in front of the music; empty where lyrics have an encoder
    tensors: Mapping[str, np.ndarray]  # `start`, `conditioning`, `cross_*`: as far as the prior has them


@dataclass(frozen=True)
class WindowTask:
    """A window ready to be loaded; counts are music codes from the window's start."""

    codes: np.ndarray  # [known + to replay]
    known: int  # codes to prefill
    end: int  # where the window is full
    uniforms: np.ndarray  # [end], in [0, 1)
    settings: LevelSettings
    conditioning: WindowConditioning


class Slot:
    """Number `index` of the session's slots and where it stands."""

    def __init__(self, session: PriorSession, prior: PriorConfig, index: int) -> None:
        self.index = index
        self._session = session
        self._prior = prior
        self._position = self._known_end = self._given_end = self._window_end = 0
        self.passes = False  # over a window that is full: it is at work for whoever counts, and idle in the session

    def load(self, task: WindowTask) -> None:
        """Put a window into the slot's buffers; nothing runs yet."""
        prefix = len(task.conditioning.lyric_tokens)
        self.passes = False
        self._position = 0
        self._known_end = prefix + task.known
        self._given_end = prefix + len(task.codes)
        self._window_end = prefix + task.end
        ids = np.concatenate([task.conditioning.lyric_tokens, task.codes + self._prior.code_shift])
        self._write("codes", self._row(ids, start=0))
        self._write("uniform", self._row(task.uniforms, start=prefix))
        self._write_settings(task.settings)
        for name, value in task.conditioning.tensors.items():
            self._write(name, value)
        self._write("not_finite", np.asarray(False))
        self._write_positions()

    def pass_over(self, window: Window) -> None:
        """Take as many blocks and steps as a window would, while the session leaves the slot alone."""
        self.release()
        self.passes = True
        self._known_end = self._prior.lyric_prefix + window.known
        self._given_end = self._window_end = self._prior.lyric_prefix + window.end

    def prefill_left(self) -> int:
        """Blocks of known codes still to work through."""
        return math.ceil(max(0, self._known_end - self._position) / self._prior.transformer.block_length)

    def prefilled_block(self) -> None:
        """Note that the session worked through one block; after the last one, begin to replay."""
        self._position = min(self._position + self._prior.transformer.block_length, self._known_end)
        if self._position == self._known_end < self._given_end and not self.passes:
            self._write("known_end", np.asarray(self._given_end))

    def steps_left(self) -> int:
        """Steps to the end of the window."""
        return self._window_end - self._position

    def stepped(self, count: int) -> None:
        """Note that the session made `count` steps, at most `steps_left`."""
        self._position += count

    def codes(self) -> np.ndarray:
        """The window's music codes so far, int64; negative where a lyric token was chosen."""
        end = max(self._position, self._given_end)
        ids = self._session.read("codes", self.index)[self._prior.lyric_prefix : end]
        return ids.astype(np.int64) - self._prior.code_shift

    def is_finite(self) -> bool:
        """Whether the logits of all steps of the window so far were numbers."""
        return not self._session.read("not_finite", self.index)

    def release(self) -> None:
        """Make the slot idle: the session leaves it alone."""
        self._position = self._known_end = self._given_end = self._window_end = 0
        self.passes = False
        self._write_positions()

    def _write(self, tensor: str, value: np.ndarray) -> None:
        dtype = self._session.spec.tensor(tensor).dtype
        plain = dtype in ("int32", "int64", "float32")  # the rest comes from a graph and has its dtype
        self._session.write(tensor, self.index, value.astype(dtype) if plain else value)

    def _write_positions(self) -> None:
        self._write("position", np.asarray(self._position))
        self._write("known_end", np.asarray(self._known_end))
        self._write("window_end", np.asarray(self._window_end))

    def _write_settings(self, settings: LevelSettings) -> None:
        """0 stands for "no filter" in the step's table."""
        self._write("temperature", np.asarray(settings.temperature))
        self._write("top_k", np.asarray(settings.top_k or 0))
        self._write("top_p", np.asarray(settings.top_p or 0.0))

    def _row(self, values: np.ndarray, start: int) -> np.ndarray:
        """Values from position `start` on in a row as long as the stack's sequence."""
        row = np.zeros(self._prior.transformer.context, values.dtype)
        row[start : start + len(values)] = values
        return row
