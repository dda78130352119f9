"""Conditioning of one window of one song, computed by the graphs of its prior."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.engine import Engine, open_conditioning
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.labels.rows import SongLabels, window_labels
from jukebox_deploy.runtime.slot import WindowConditioning
from jukebox_deploy.runtime.windows import Window


class WindowConditioner:
    """The `condition` and `lyrics` graphs of one prior, run for one window at a time.

    They are never batched, so that the results do not depend on which songs are sampled together.
    """

    def __init__(self, engine: Engine, prior: PriorConfig) -> None:
        self._vqvae = engine.config.vqvae
        self._prior = prior
        self._runners = open_conditioning(engine, prior)

    def __call__(self, window: Window, labels: SongLabels, upper_codes: np.ndarray) -> WindowConditioning:
        """Compute the conditioning of a window.

        `upper_codes` `[codes]` are the song's codes at the level above; they are ignored at the top level.
        """
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
        """Return the upper codes of the window and no others.

        The conditioner pads with zeros at both ends of its input, so more codes would change the result
        (specification 9.1).
        """
        first, count = window.start // upsampling, self._prior.window // upsampling
        if len(upper_codes) < first + count:
            raise SamplingError(
                f"level {self._prior.level} needs the first {first + count} codes of level {self._prior.level + 1}, "
                f"but only {len(upper_codes)} exist; sample level {self._prior.level + 1} first."
            )
        return upper_codes[first : first + count]
