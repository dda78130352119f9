"""Which lyric characters a prior looked at while it made which codes (specification 12.6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.labels.rows import SongLabels, WindowLabels, window_labels
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.runtime.windows import WindowGeometry, window_starts


def alignment_windows(
    config: PriorConfig, sample_rate: int, hop_length: int, song: SongLabels, total: int
) -> dict[int, WindowLabels]:
    """The labels of every window of `total` codes, by the code that it starts at.

    The windows are those of sampling from nothing; a song shorter than one window has one.
    """
    starts = window_starts(WindowGeometry.of(config), total) if total >= config.window else [0]
    return {start: window_labels(config, sample_rate, hop_length, song, start) for start in starts}


@torch.no_grad()
def lyric_alignment(
    prior: Prior, config: PriorConfig, codes: np.ndarray, windows: Mapping[int, WindowLabels], lyric_count: int
) -> np.ndarray:
    """Attention weights `[codes, lyric_count]` of the model's alignment layer and head.

    `codes` `[T]` are music codes, `windows` the labels by window start, `lyric_count` the characters
    of the whole song. Where windows overlap the earlier one counts. Raises `ConfigError` for a model
    without lyrics, or whose alignment layer is not known.
    """
    lyrics = config.lyrics
    if lyrics is None or lyrics.alignment_layer is None or lyrics.alignment_head is None:
        raise ConfigError(
            f"prior {config.level} has no alignment layer and head, so it cannot tell what it looked at; "
            "use a model with lyrics that names them."
        )
    padded = np.pad(codes, (0, config.window))  # a song shorter than a window is filled up with code 0
    # One column more for padding in front of short lyrics, whose index is -1.
    matrix = np.zeros((len(padded), lyric_count + 1), np.float32)
    for start in sorted(windows, reverse=True):
        labels = windows[start]
        assert labels.lyrics is not None
        rows = slice(start, start + config.window)
        weights = _window_attention(prior, config, padded[rows], labels, lyrics.alignment_layer)
        matrix[rows, labels.lyrics.indices] = weights[lyrics.alignment_head]
    return matrix[: len(codes), :lyric_count]


def _window_attention(
    prior: Prior, config: PriorConfig, codes: np.ndarray, labels: WindowLabels, layer: int
) -> np.ndarray:
    """Weights `[H, window, lyric tokens]` of one window."""
    arrays = {name: torch.from_numpy(array)[None] for name, array in labels.arrays().items()}
    lyric_tokens = arrays.pop("lyric_tokens")
    start, conditioning = prior.condition(arrays) if config.labels else (None, None)
    tokens = torch.from_numpy(codes.astype(np.int64))[None] + config.code_shift
    if config.lyric_prefix:
        tokens = torch.cat([lyric_tokens, tokens], dim=1)
    weights = prior.lyric_attention(tokens, start, conditioning, lyric_tokens, layer)
    return weights[0].numpy()
