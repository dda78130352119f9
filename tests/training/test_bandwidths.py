"""The constants of a data set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from jukebox_deploy.errors import DataError
from jukebox_deploy.training.bandwidths import estimate_bandwidths


def sounds() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.1 + 0.3 * torch.randn(2, 1, 4096, generator=generator) for _ in range(3)]


def test_they_are_the_moments_of_the_samples_and_the_mean_norm_of_the_spectrograms():
    found = estimate_bandwidths(sounds(), sample_rate=8000)
    samples = torch.cat(sounds()).double()
    window = torch.hann_window(1536)
    spectra = torch.stft(
        torch.cat(sounds())[:, 0], 2048, 256, 1536, window, center=True, pad_mode="reflect", return_complex=True
    )
    assert found.l1 == pytest.approx(samples.abs().mean().item())
    assert found.l2 == pytest.approx(samples.var(correction=0).item())
    assert found.spectral == pytest.approx(spectra.abs().square().sum((1, 2)).sqrt().mean().item(), rel=1e-5)


def test_no_more_sound_is_asked_for_than_is_wanted():
    def endless() -> Iterator[Tensor]:
        yield from sounds()[:2]
        raise AssertionError("two batches are 2 s of sound, and 1.5 s are wanted")

    assert estimate_bandwidths(endless(), sample_rate=8192, seconds=1.5) == estimate_bandwidths(sounds()[:2], 8192)


def test_silence_is_refused():
    with pytest.raises(DataError, match="the songs are silent"):
        estimate_bandwidths([torch.zeros(1, 1, 4096)], 8000)
