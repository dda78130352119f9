"""What one window of one song is conditioned on, as its prior's graphs work it out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engine import Engine, GraphRunner
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.labels.rows import SongLabels, window_labels
from jukebox_deploy.runtime.slot import WindowConditioning
from jukebox_deploy.runtime.windows import Window


class WindowConditioner:
    """The graphs `condition` and `lyrics` of one prior, run for one window at a time.

    One at a time, so that the numbers do not depend on which songs are sampled together.
    """

    def __init__(self, engine: Engine, prior: PriorConfig) -> None:
        self._vqvae = engine.config.vqvae
        self._prior = prior
        self._runners: list[GraphRunner] = []
        if prior.labels or prior.conditioner:
            self._runners.append(engine.runner(GraphKind.CONDITION, prior.level))
        if prior.lyrics and prior.lyrics.encoder:
            self._runners.append(engine.runner(GraphKind.LYRICS, prior.level))

    def __call__(self, window: Window, labels: SongLabels, upper_codes: np.ndarray) -> WindowConditioning:
        """Condition a window of a song whose level above has `upper_codes`, `[codes]` (none at the top)."""
        arrays: dict[str, np.ndarray] = dict(self._labels(window, labels))
        if self._prior.conditioner:
            arrays["upper_codes"] = self._upper_slice(window, upper_codes, self._prior.conditioner.upsampling)
        tensors: dict[str, np.ndarray] = {}
        for runner in self._runners:
            results = runner({tensor.name: arrays[tensor.name][None] for tensor in runner.spec.inputs})
            tensors.update({name: value[0] for name, value in results.items()})
        tokens = arrays["lyric_tokens"] if self._prior.lyric_prefix else np.zeros(0, np.int64)
        return WindowConditioning(tokens, tensors)

    def _labels(self, window: Window, labels: SongLabels) -> Mapping[str, np.ndarray]:
        hop = self._vqvae.hop_length(self._prior.level)
        return window_labels(self._prior, self._vqvae.sample_rate, hop, labels, window.start).arrays()

    def _upper_slice(self, window: Window, upper_codes: np.ndarray, upsampling: int) -> np.ndarray:
        """Exactly the window's codes of the level above: the network pads at their ends (specification 9.1)."""
        first, count = window.start // upsampling, self._prior.window // upsampling
        if len(upper_codes) < first + count:
            raise SamplingError(
                f"level {self._prior.level} needs the codes of level {self._prior.level + 1} up to {first + count}, "
                f"but only {len(upper_codes)} are there; sample level {self._prior.level + 1} first."
            )
        return upper_codes[first : first + count]
