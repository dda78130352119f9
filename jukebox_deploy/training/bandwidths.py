"""Estimation of the constants of a data set that the losses are divided by. Source: specification section 3.3."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from jukebox_deploy.errors import DataError
from jukebox_deploy.models.losses import SPECTRAL, Bandwidths, magnitude_spectrogram

_SECONDS = 600


@torch.no_grad()
def estimate_bandwidths(batches: Iterable[Tensor], sample_rate: int, seconds: float = _SECONDS) -> Bandwidths:
    """Estimate the constants from batches of audio `[B, 1, T]` until `seconds` of audio have been read, or from all.

    Raises `DataError` if all of it is silent.
    """
    samples = examples = 0
    total = magnitude = square = norm = 0.0
    for audio in batches:
        wide = audio.double()
        samples, examples = samples + audio.numel(), examples + len(audio)
        total, square = total + wide.sum().item(), square + wide.square().sum().item()
        magnitude += wide.abs().sum().item()
        norm += torch.linalg.vector_norm(magnitude_spectrogram(audio, SPECTRAL), dim=(1, 2)).sum().item()
        if samples >= seconds * sample_rate:
            break
    if not magnitude:
        raise DataError("the songs are silent, so losses cannot be scaled; give songs with sound in them.")
    return Bandwidths(magnitude / samples, square / samples - (total / samples) ** 2, norm / examples)
