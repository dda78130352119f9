"""One window of one song in one slot of a prior's session.

A slot goes through three phases. *Prefill* processes the codes that were known when the window was planned, one block
at a time. *Replay* steps through codes that an interrupted run had already sampled: the step is given them as known
codes and keeps them, so the same kernels compute the same values as in an uninterrupted run. *Sampling* draws the
remaining codes. The slot tracks its position on the host in parallel with the device, so that nothing needs to be read
back between steps.
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
    """Conditioning of a window, in the form in which a slot takes it."""

    lyric_tokens: np.ndarray  # [lyric prefix], placed before the music codes; empty if the prior has no such prefix
    tensors: Mapping[str, np.ndarray]  # those of `start`, `conditioning` and `cross_*` that the prior has


@dataclass(frozen=True)
class WindowTask:
    """A window ready to be loaded into a slot; positions count music codes from the window's start."""

    codes: np.ndarray  # [codes to prefill + codes to replay]
    known: int  # number of codes to prefill
    end: int  # position at which the window is full
    uniforms: np.ndarray  # [end], in [0, 1)
    settings: LevelSettings
    conditioning: WindowConditioning


class Slot:
    """Slot number `index` of a session, and the position that it has reached."""

    def __init__(self, session: PriorSession, prior: PriorConfig, index: int) -> None:
        self.index = index
        self._session = session
        self._prior = prior
        self._position = self._known_end = self._given_end = self._window_end = 0
        self.holds_place = False  # occupied without computing, see `hold_place`

    def load(self, task: WindowTask) -> None:
        """Write a window to the slot's buffers; nothing runs yet."""
        prefix = len(task.conditioning.lyric_tokens)
        self.holds_place = False
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

    def hold_place(self, window: Window) -> None:
        """Count the prefill blocks and steps that a window would take, while the slot is idle in the session."""
        self.release()
        self.holds_place = True
        self._known_end = self._prior.lyric_prefix + window.known
        self._given_end = self._window_end = self._prior.lyric_prefix + window.end

    def prefill_left(self) -> int:
        """Return the number of blocks of known codes that are still to be prefilled."""
        return math.ceil(max(0, self._known_end - self._position) / self._prior.transformer.block_length)

    def prefilled_block(self) -> None:
        """Record that the session prefilled one block; after the last block, switch to replay."""
        self._position = min(self._position + self._prior.transformer.block_length, self._known_end)
        if self._position == self._known_end < self._given_end and not self.holds_place:
            self._write_known_end()

    def steps_left(self) -> int:
        """Return the number of steps to the end of the window."""
        return self._window_end - self._position

    def stepped(self, count: int) -> None:
        """Record that the session ran `count` steps, at most `steps_left()`."""
        self._position += count

    def codes(self) -> np.ndarray:
        """Read the window's music codes so far, int64; negative where a lyric token was drawn."""
        end = max(self._position, self._given_end)
        ids = self._session.read("codes", self.index)[self._prior.lyric_prefix : end]
        return ids.astype(np.int64) - self._prior.code_shift

    def is_finite(self) -> bool:
        """Return whether the logits of all steps of the window so far were finite."""
        return not self._session.read("not_finite", self.index)

    def release(self) -> None:
        """Make the slot idle: an empty window, in which the session computes nothing of use."""
        self._position = self._known_end = self._given_end = self._window_end = 0
        self.holds_place = False
        self._write_positions()

    def _write(self, tensor: str, value: np.ndarray) -> None:
        dtype = self._session.spec.tensor(tensor).dtype
        plain = dtype in ("int32", "int64", "float32")  # half-precision tensors come from a graph in their dtype
        self._session.write(tensor, self.index, value.astype(dtype) if plain else value)

    def _write_positions(self) -> None:
        self._write("position", np.asarray(self._position))
        self._write_known_end()
        self._write("window_end", np.asarray(self._window_end))

    def _write_known_end(self) -> None:
        """Write where the known codes end: those to prefill, and once they are done, those to replay too."""
        is_prefilled = self._position == self._known_end
        self._write("known_end", np.asarray(self._given_end if is_prefilled else self._known_end))

    def _write_settings(self, settings: LevelSettings) -> None:
        """Write the sampling settings; the step takes 0 as "no filter"."""
        self._write("temperature", np.asarray(settings.temperature))
        self._write("top_k", np.asarray(settings.top_k or 0))
        self._write("top_p", np.asarray(settings.top_p or 0.0))

    def _row(self, values: np.ndarray, start: int) -> np.ndarray:
        """Return a zero row of the context's length with `values` from position `start` on."""
        row = np.zeros(self._prior.transformer.context, values.dtype)
        row[start : start + len(values)] = values
        return row
