"""Attention of a prior from codes to lyric characters (specification 12.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.labels.rows import SongLabels, WindowLabels, window_labels
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.runtime.windows import WindowGeometry, window_starts
from jukebox_deploy.training.objective import PriorObjective

ShowWindows = Callable[[float, int], None]
"""Called with the number of windows done and the total."""


def alignment_windows(
    config: PriorConfig, sample_rate: int, hop_length: int, song: SongLabels, total: int
) -> dict[int, WindowLabels]:
    """Return the labels of every window of `total` codes, by the code at which it starts.

    Windows are as in sampling without a prompt; a song shorter than one window has one window.
    """
    starts = window_starts(WindowGeometry.of(config), total) if total >= config.window else [0]
    return {start: window_labels(config, sample_rate, hop_length, song, start) for start in starts}


def alignment_head(config: PriorConfig) -> tuple[int, int]:
    """Return the layer and the head whose attention follows the lyrics, as configured for the model.

    Raises `ConfigError` for a model without lyrics, or whose alignment layer is not known.
    """
    lyrics = config.lyrics
    if lyrics is None or lyrics.alignment_layer is None or lyrics.alignment_head is None:
        raise ConfigError(
            f"prior {config.level} has no alignment layer and head, so it cannot tell what it looked at; "
            "use a model with lyrics that names them."
        )
    return lyrics.alignment_layer, lyrics.alignment_head


@torch.no_grad()
def lyric_alignment(
    prior: Prior,
    config: PriorConfig,
    codes: np.ndarray,
    windows: Mapping[int, WindowLabels],
    lyric_count: int,
    show: ShowWindows = lambda done, total: None,
) -> np.ndarray:
    """Compute the attention weights `[codes, lyric_count]`, float32, of the model's alignment layer and head.

    `codes` `[T]` are music codes, `windows` the labels by window start, `lyric_count` the characters
    of the whole song. Where windows overlap, the earlier one is used. Windows are run one at a time through the
    model, on its device, up to the alignment layer. Raises as `alignment_head` does.
    """
    layer, head = alignment_head(config)
    padded = np.pad(codes, (0, config.window))  # a song shorter than a window is padded with code 0
    # One column more for padding in front of short lyrics, whose index is -1.
    matrix = np.zeros((len(padded), lyric_count + 1), np.float32)
    with _told_layers(prior, layer, len(windows), show) as tell:
        for start in sorted(windows, reverse=True):
            labels = windows[start]
            assert labels.lyrics is not None
            rows = slice(start, start + config.window)
            weights = _window_attention(prior, config, padded[rows], labels, layer)
            matrix[rows, labels.lyrics.indices] = weights[head].cpu().numpy()
            tell()
    return matrix[: len(codes), :lyric_count]


@contextmanager
def _told_layers(prior: Prior, layers: int, windows: int, show: ShowWindows) -> Iterator[Callable[[], None]]:
    """Report each finished layer below the alignment layer: a window of a large model takes minutes.

    Yields a function that reports the alignment layer.
    """
    done = 0

    def tell(*_: object) -> None:
        nonlocal done
        done += 1
        show(done / (layers + 1), windows)

    show(0, windows)
    hooks = [layer.register_forward_hook(tell) for layer in prior.core.transformer.typed_layers()[:layers]]
    try:
        yield tell
    finally:
        for hook in hooks:
            hook.remove()


def _window_attention(
    prior: Prior, config: PriorConfig, codes: np.ndarray, labels: WindowLabels, layer: int
) -> torch.Tensor:
    """Compute the attention weights `[H, window, lyric tokens]` of one window."""
    device = prior.core.position_embedding.device
    arrays = {"codes": codes.astype(np.int64), **labels.arrays()}
    batch = {name: torch.from_numpy(array)[None].to(device) for name, array in arrays.items()}
    window = PriorObjective(prior, config).whole_windows(batch)
    return prior.lyric_attention(window.tokens, window.start, window.conditioning, batch["lyric_tokens"], layer)[0]
