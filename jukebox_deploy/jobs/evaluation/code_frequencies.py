"""Prediction of codes by their frequencies alone: a baseline that a prior has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from jukebox_deploy.data.code_cache import CodedSong
from jukebox_deploy.training.metrics import TokenScore, code_counts, token_score


@dataclass(frozen=True)
class FrequencyScore:
    """The score of predicting the windows of a prior from code frequencies in other songs."""

    level: int
    score: TokenScore  # of the windows
    songs: int  # in which codes were counted
    codes: int  # in these songs; those of a window's own song are not used for it

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        score = self.score
        return {
            "level": self.level,
            "bits_per_token": score.bits_per_token,
            "top1": score.top1,
            "tokens": score.tokens,
            "counted_songs": self.songs,
            "counted_codes": self.codes,
        }


def score_by_frequency(
    level: int, songs: Sequence[CodedSong], windows: Iterable[tuple[CodedSong, np.ndarray]], codebook_size: int
) -> FrequencyScore | None:
    """Score windows, each given as its song and its codes `[T]`, by how often codes occur in all other songs.

    Add-one smoothing keeps every code possible. Returns `None` for a single song, as there are no others.
    Raises `DataError` if codes cannot be read.
    """
    if len(songs) < 2:
        return None
    counts = {song.path: code_counts(torch.from_numpy(song.codes(level)), codebook_size) for song in songs}
    total = torch.stack(list(counts.values())).sum(0)
    score = TokenScore()
    for song, codes in windows:
        smoothed = (total - counts[song.path] + 1).double()
        logits = (smoothed / smoothed.sum()).log()
        score += token_score(logits.expand(len(codes), -1), torch.from_numpy(codes))
    return FrequencyScore(level, score, len(songs), int(total.sum()))
