"""Windows with known codes, for calibrating quantisation and for measuring its quality.

The codes are the model's own samples, or those of song folders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, find_graph, graph_name
from jukebox_deploy.engine import Engine
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.export.calibration import CalibrationWindows
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.jobs.comparison.window_runs import WindowStretch, random_conditioning, run_sampled_codes
from jukebox_deploy.labels.rows import window_labels
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.conditioning import WindowConditioner
from jukebox_deploy.runtime.plan import plan_song
from jukebox_deploy.runtime.song import SongLengths
from jukebox_deploy.runtime.store import SongRecord, read_codes, read_record


@dataclass(frozen=True)
class ForcedWindows:
    """Windows of one prior with their conditioning."""

    tensors: Mapping[str, np.ndarray]  # inputs of the step by name, `[B, ...]`, the codes among them
    lyric_tokens: np.ndarray | None  # [B, L], for a lyric encoder of its own
    length: int  # positions whose codes are known, lyrics included; a whole number of blocks

    @property
    def positions(self) -> int:
        """Positions of all windows."""
        return self.length * len(self.tensors["codes"])

    def stretch(self, prior: PriorConfig) -> WindowStretch:
        """The known codes after the lyrics, as a stretch to step over."""
        prefix = np.full(len(self.tensors["codes"]), prior.lyric_prefix)
        return WindowStretch(self.tensors, prefix, self.length - prior.lyric_prefix)

    def calibration(self) -> CalibrationWindows:
        """The windows as calibration data: whole sequences of tensors."""

        def tensor(name: str) -> Tensor | None:
            return torch.from_numpy(self.tensors[name]) if name in self.tensors else None

        codes = torch.from_numpy(self.tensors["codes"][:, : self.length].astype(np.int64))
        lyrics = None if self.lyric_tokens is None else torch.from_numpy(self.lyric_tokens)
        return CalibrationWindows(codes, tensor("start"), tensor("conditioning"), lyrics)


def whole_blocks(prior: PriorConfig, music: int) -> int:
    """Return the length, in whole blocks, of the lyrics and a number of music codes; at most the context."""
    stack = prior.transformer
    blocks = -(-(prior.lyric_prefix + music) // stack.block_length)
    return min(blocks, stack.block_count) * stack.block_length


def sample_windows(
    model: Engine, prior: PriorConfig, slots: int, length: int, seed: int
) -> tuple[ForcedWindows, np.ndarray]:
    """Sample windows from the model at temperature 1, for random labels, lyrics and upper codes.

    The model's step must output its logits. Also returns those that the codes were sampled from, `[steps, B, V]`.
    """
    spec = find_graph(model.graphs, GraphKind.STEP, prior.level)
    tensors = random_conditioning(model, prior, slots, seed)
    tensors["uniform"] = _random(model, spec, "uniform", slots, seed)
    codes = np.zeros((slots, prior.transformer.context), np.int32)
    if prior.lyric_prefix and prior.lyrics:
        random = np.random.default_rng(seed)
        codes[:, : prior.lyric_prefix] = random.integers(0, prior.lyrics.vocabulary, (slots, prior.lyric_prefix))
    windows = ForcedWindows({**tensors, "codes": codes}, _random_lyrics(model, prior, slots, seed), length)
    session = model.prior_session(prior.level, slots)
    music, logits = run_sampled_codes(session, prior, windows.stretch(prior))
    codes[:, prior.lyric_prefix : length] = music
    return windows, logits


def _random(model: Engine, spec: GraphSpec, name: str, slots: int, seed: int) -> np.ndarray:
    return random_feed(spec.tensor(name), spec, model.config, {"B": slots}, seed)


def _random_lyrics(model: Engine, prior: PriorConfig, slots: int, seed: int) -> np.ndarray | None:
    """Return the lyrics that `random_conditioning` draws, if the prior has a separate lyric encoder."""
    spec = model.graphs.get(graph_name(GraphKind.LYRICS, prior.level))
    return None if spec is None else _random(model, spec, "lyric_tokens", slots, seed)


@dataclass(frozen=True)
class _SongWindow:
    ids: np.ndarray  # [length] of the stack's vocabulary, lyrics first
    tensors: Mapping[str, np.ndarray]  # `start`, `conditioning`, `cross_*`
    lyric_tokens: np.ndarray | None  # [L]


def song_windows(
    model: Engine, prior: PriorConfig, vocabulary: Vocabulary, folders: Sequence[Path], count: int
) -> ForcedWindows:
    """Return at most `count` windows of the songs in these folders, spread evenly over them.

    Raises `SamplingError` as `require_songs` does.
    """
    windows = [window for folder in folders for window in _windows_of_song(model, prior, vocabulary, folder)]
    chosen = [windows[index] for index in np.unique(np.linspace(0, len(windows) - 1, count).round().astype(int))]
    block = prior.transformer.block_length
    length = min(len(window.ids) for window in chosen) // block * block
    codes = np.zeros((len(chosen), prior.transformer.context), np.int32)
    for row, window in zip(codes, chosen, strict=True):
        row[:length] = window.ids[:length]
    tensors = {name: np.stack([window.tensors[name] for window in chosen]) for name in chosen[0].tensors}
    lyrics = [window.lyric_tokens for window in chosen if window.lyric_tokens is not None]
    return ForcedWindows({**tensors, "codes": codes}, np.stack(lyrics) if lyrics else None, length)


def require_songs(config: JukeboxConfig, priors: Iterable[PriorConfig], folders: Sequence[Path]) -> None:
    """Raise `SamplingError` for a folder whose song cannot give windows to these priors.

    It must be complete at the level of each and the one above, and have a whole block of codes.
    """
    for prior in priors:
        for folder in folders:
            _codes_of_song(config, prior, folder, read_record(folder))


def _codes_of_song(
    config: JukeboxConfig, prior: PriorConfig, folder: Path, record: SongRecord
) -> Mapping[int, np.ndarray]:
    """Return the codes of a song at the level of a prior and the one above."""
    level, block, totals = prior.level, prior.transformer.block_length, record.lengths.totals
    if len(totals) != config.vqvae.levels:
        raise SamplingError(
            f"{folder}: the song has {len(totals)} levels, but this model has {config.vqvae.levels}; use songs that it "
            "sampled."
        )
    codes = {at: read_codes(folder, at, config.vqvae.codebook_size) for at in range(level, min(level + 2, len(totals)))}
    if short := [at for at in codes if len(codes[at]) < totals[at]]:
        raise SamplingError(
            f"{folder} has {len(codes[short[0]])} of {totals[short[0]]} codes at level {short[0]}; sample the song to "
            "its end, at all levels, or leave it out."
        )
    if (prior.lyric_prefix + totals[level]) // block * block <= prior.lyric_prefix:
        raise SamplingError(
            f"{folder}: the song has {totals[level]} codes at level {level}, less than one block of {block}; leave it "
            "out, or use a longer one."
        )
    return codes


def _windows_of_song(model: Engine, prior: PriorConfig, vocabulary: Vocabulary, folder: Path) -> Iterator[_SongWindow]:
    config, level = model.config, prior.level
    record = read_record(folder)
    codes = _codes_of_song(config, prior, folder, record)
    nothing_given = SongLengths((0,) * config.vqvae.levels, record.lengths.totals)
    plan = plan_song(config, vocabulary, record.request, nothing_given, level)[level]
    conditioner = WindowConditioner(model, prior)
    hop = config.vqvae.hop_length(level)
    for window in plan.windows:
        made = conditioner(window, plan.song.labels, codes.get(level + 1, np.zeros(0, np.int64)))
        music = codes[level][window.start : window.start + window.end] + prior.code_shift
        labels = window_labels(prior, config.vqvae.sample_rate, hop, plan.song.labels, window.start)
        lyrics = labels.lyrics.tokens if labels.lyrics and not prior.lyric_prefix else None
        yield _SongWindow(np.concatenate([made.lyric_tokens, music]), made.tensors, lyrics)
