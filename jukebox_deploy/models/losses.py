"""Training losses of the VQ-VAE: waveform terms, spectral terms and commitment.

The waveform and spectral terms are divided by constants of the data set ("bandwidths"), so that their weights mean the
same for every data set. Source: specification section 3; paper sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from jukebox_deploy.errors import AudioError, ConfigError
from jukebox_deploy.listing import words_of
from jukebox_deploy.models.vqvae import Reconstruction


@dataclass(frozen=True)
class Bandwidths:
    """Constants of a data set, estimated once before training."""

    l1: float  # mean absolute sample
    l2: float  # variance of the samples
    spectral: float  # mean Frobenius norm of an example's magnitude spectrogram (`SPECTRAL`)


@dataclass(frozen=True)
class SpectrogramSettings:
    """Settings of a short-time Fourier transform, in samples."""

    transform: int  # n_fft
    hop: int
    window: int


SPECTRAL = SpectrogramSettings(2048, 256, 1536)
"""Spectrogram of the spectral loss and of spectral convergence."""

MULTISPECTRAL = (
    SpectrogramSettings(2048, 240, 1200),
    SpectrogramSettings(1024, 120, 600),
    SpectrogramSettings(512, 50, 240),
)
"""Spectrograms of the multispectral loss."""

_QUIET = 0.002  # spectral convergence is 0 for targets with a norm up to this


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms. The defaults are those of the released VQ-VAE ("lmix")."""

    l1: float = 0.0
    l2: float = 1.0
    linf: float = 0.02
    linf_samples: int = 2048  # number of samples with the largest errors, per example
    spectral: float = 0.0
    spectral_convergence: bool = False  # replace the spectral loss by its relative form, spectral convergence
    multispectral: float = 1.0
    commit: float = 0.02
    waveform: tuple[float, ...] = ()
    """Factors of the sum of l1, l2 and linf by level, level 0 first; 1 for missing levels. A level with few codes per
    second cannot encode the phases of the sound. With a lower factor, its codes say more about pitches and instruments
    (not in the paper)."""

    def __post_init__(self) -> None:
        if not any((self.l1, self.l2, self.linf)):
            raise ConfigError("loss: the weights of l1, l2 and linf are all 0; give at least one of them.")
        if not all(0 <= factor < float("inf") for factor in self.waveform):
            factors = words_of(map(str, self.waveform))
            raise ConfigError(f"loss: the waveform factors by level are {factors}; expected 0 or more for each.")

    def waveform_factor(self, level: int) -> float:
        """Return the factor of the waveform terms of a level."""
        return self.waveform[level] if level < len(self.waveform) else 1.0


@dataclass(frozen=True)
class LossReport:
    """The loss and its parts; all tensors are scalars, and tuples have one per level.

    A part with weight 0 has no gradients. If the audio is too short for such a part, it is `None` or an empty tuple.
    """

    levels: tuple[int, ...]
    total: Tensor
    reconstruction: tuple[Tensor, ...]
    spectral: tuple[Tensor, ...]
    multispectral: tuple[Tensor, ...]
    commit: Tensor  # summed over the levels
    l1: Tensor  # of the finest level, as are the next three
    l2: Tensor
    linf: Tensor | None
    spectral_convergence: Tensor | None


def l1_loss(target: Tensor, output: Tensor, bandwidths: Bandwidths) -> Tensor:
    """Compute the mean absolute error of `[B, 1, T]`, a scalar."""
    return (output - target).abs().mean() / bandwidths.l1


def l2_loss(target: Tensor, output: Tensor, bandwidths: Bandwidths) -> Tensor:
    """Compute the mean squared error of `[B, 1, T]`, a scalar."""
    return (output - target).square().mean() / bandwidths.l2


def linf_loss(target: Tensor, output: Tensor, bandwidths: Bandwidths, samples: int) -> Tensor:
    """Compute the mean of the `samples` largest squared errors of each example of `[B, 1, T]`, a scalar.

    Raises `AudioError` if the audio has fewer samples than that.
    """
    errors = (output - target).square().flatten(1)
    if errors.shape[1] < samples:
        raise AudioError(f"linf loss: needs {samples} samples per example, found {errors.shape[1]}.")
    return errors.topk(samples, dim=1).values.mean() / bandwidths.l2


def magnitude_spectrogram(audio: Tensor, settings: SpectrogramSettings) -> Tensor:
    """Compute the magnitudes of the channels' mean: `[B, C, T] -> [B, transform/2 + 1, frames]`.

    Raises `AudioError` if the audio is too short for the reflection padding at its ends.
    """
    if audio.shape[-1] <= settings.transform // 2:
        raise AudioError(f"spectrogram: needs more than {settings.transform // 2} samples, found {audio.shape[-1]}.")
    window = torch.hann_window(settings.window, device=audio.device, dtype=audio.dtype)
    spectrum = torch.stft(
        audio.mean(dim=1),
        settings.transform,
        hop_length=settings.hop,
        win_length=settings.window,
        window=window,
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    return spectrum.abs()


def spectral_distance(target: Tensor, output: Tensor, settings: SpectrogramSettings = SPECTRAL) -> Tensor:
    """Compute the Frobenius norm of the difference of the spectrograms: `[B, C, T]` twice -> `[B]`."""
    difference = magnitude_spectrogram(target, settings) - magnitude_spectrogram(output, settings)
    return _frobenius(difference)


def multispectral_distance(target: Tensor, output: Tensor) -> Tensor:
    """Compute the mean spectral distance over three resolutions: `[B, C, T]` twice -> `[B]`."""
    distances = [spectral_distance(target, output, settings) for settings in MULTISPECTRAL]
    return torch.stack(distances).mean(dim=0)


def spectral_convergence(target: Tensor, output: Tensor) -> Tensor:
    """Compute the spectral distance relative to the target's norm, 0 for quiet targets: `[B, C, T]` twice -> `[B]`."""
    spectrogram = magnitude_spectrogram(target, SPECTRAL)
    norm = _frobenius(spectrogram)
    distance = _frobenius(spectrogram - magnitude_spectrogram(output, SPECTRAL))
    return torch.where(norm > _QUIET, distance / norm.clamp(min=_QUIET), torch.zeros_like(norm))


def reconstruction_loss(target: Tensor, output: Tensor, settings: LossSettings, bandwidths: Bandwidths) -> Tensor:
    """Compute the weighted sum of the waveform terms for `[B, 1, T]`, a scalar; terms with weight 0 are skipped."""
    terms: tuple[tuple[float, Callable[[], Tensor]], ...] = (
        (settings.l1, lambda: l1_loss(target, output, bandwidths)),
        (settings.l2, lambda: l2_loss(target, output, bandwidths)),
        (settings.linf, lambda: linf_loss(target, output, bandwidths, settings.linf_samples)),
    )
    return torch.stack([weight * term() for weight, term in terms if weight]).sum()


def _frobenius(spectrogram: Tensor) -> Tensor:
    """Compute the norm per example: `[B, F, frames] -> [B]`."""
    norm: Tensor = torch.linalg.vector_norm(spectrogram, dim=(1, 2))
    return norm


def _spectral_term(target: Tensor, settings: LossSettings, bandwidths: Bandwidths, output: Tensor) -> Tensor:
    if settings.spectral_convergence:
        return spectral_convergence(target, output).mean()
    return spectral_distance(target, output).mean() / bandwidths.spectral


def _multispectral_term(target: Tensor, bandwidths: Bandwidths, output: Tensor) -> Tensor:
    return multispectral_distance(target, output).mean() / bandwidths.spectral


def vqvae_loss(
    target: Tensor, reconstruction: Reconstruction, settings: LossSettings, bandwidths: Bandwidths
) -> LossReport:
    """Compute the whole training loss for audio `[B, 1, T]`; levels are summed, not averaged.

    Raises `AudioError` if the audio is too short for a term with a nonzero weight.
    """
    outputs = reconstruction.audio
    has_spectrum = target.shape[-1] > SPECTRAL.transform // 2  # the longest transform of all spectral terms
    waveform = tuple(reconstruction_loss(target, output, settings, bandwidths) for output in outputs)
    spectral = _per_level(
        settings.spectral, has_spectrum, outputs, partial(_spectral_term, target, settings, bandwidths)
    )
    multispectral = _per_level(
        settings.multispectral, has_spectrum, outputs, partial(_multispectral_term, target, bandwidths)
    )
    commit = torch.stack(reconstruction.commit_losses).sum()
    weighted = [settings.waveform_factor(level) * t for level, t in zip(reconstruction.levels, waveform, strict=True)]
    total = torch.stack(weighted).sum()
    for weight, terms in ((settings.spectral, spectral), (settings.multispectral, multispectral)):
        if weight:
            total = total + weight * torch.stack(terms).sum()
    finest = outputs[0].detach()
    has_worst = target.shape[-1] >= settings.linf_samples
    return LossReport(
        reconstruction.levels,
        total + settings.commit * commit,
        waveform,
        spectral,
        multispectral,
        commit,
        l1=l1_loss(target, finest, bandwidths),
        l2=l2_loss(target, finest, bandwidths),
        linf=linf_loss(target, finest, bandwidths, settings.linf_samples) if has_worst else None,
        spectral_convergence=spectral_convergence(target, finest).mean() if has_spectrum else None,
    )


def _per_level(
    weight: float, fits: bool, outputs: Sequence[Tensor], term: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Compute a term for each level's output; with weight 0, without gradients and only if the audio `fits` it."""
    if weight:
        return tuple(term(output) for output in outputs)
    with torch.no_grad():
        return tuple(term(output) for output in outputs) if fits else ()
