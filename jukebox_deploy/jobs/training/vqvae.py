"""Training of the VQ-VAE on crops of songs: its data, metrics, reports and bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.data.crops import AudioCrops, CropSettings
from jukebox_deploy.errors import ConfigError, TrainingError
from jukebox_deploy.jobs.training.bundle import component_source, write_trained_bundle
from jukebox_deploy.jobs.training.left_out import left_out_warnings
from jukebox_deploy.jobs.training.request import Songs, TrainingListener, TrainRequest
from jukebox_deploy.jobs.training.sounds import write_sounds
from jukebox_deploy.models.bottleneck import Codebook, CodebookState, UpdateRule, restore_codebook
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.models.losses import SPECTRAL, Bandwidths, LossSettings, spectral_convergence
from jukebox_deploy.models.vqvae import VQVAE
from jukebox_deploy.runtime.song import whole_samples
from jukebox_deploy.training.bandwidths import estimate_bandwidths
from jukebox_deploy.training.metrics import code_counts, code_use, error_energy
from jukebox_deploy.training.objective import VQVAEObjective, pack_codebooks
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import RunSettings
from jukebox_deploy.training.trainer import TrainedWeights, Trainer
from jukebox_deploy.training.workers import Workers

_ASSESSED_CROPS, _ASSESSED_SECONDS = 16, 4.0  # seconds: at most
_REPORTED_CROPS = 3  # of the assessed ones
_SPECTRUM_SAMPLES = SPECTRAL.transform // 2 + 1  # the fewest that the spectral losses and metrics can be computed from
_SECONDS = 393_216 / 44_100  # default length of an example: the paper's
_REVIVAL_SHARE = 0.4
"""Codes that get more than this share of the average number of latents per code are never restarted, however small the
batch is."""


class VQVAETraining:
    """The VQ-VAE as a `TrainingPart`."""

    examples = "samples"

    def __init__(self, request: TrainRequest, workers: Workers, listen: TrainingListener) -> None:
        """Read the songs and estimate the constants of the losses.

        Raises `DataError` for songs, `ConfigError` or `TrainingError` for settings that do not fit.
        """
        self._request, self._workers = request, workers
        songs = Songs.read(request)
        start = request.open_bundle() if request.fine_tune else None
        model = request.model(start)
        self._config = JukeboxConfig(model.name, model.vqvae)
        self._start = start
        settings = request.settings
        _require_levels(settings.loss, self._config)
        self._levels = _trained_levels(settings, self._config, start)
        self.example_length = _example_samples(settings, self._config)
        share = settings.examples(workers.count)
        self._crops = self._make_crops(songs.trained, self.example_length, share, workers.rank, workers.count)
        self._bandwidths = self._estimate_bandwidths(songs.trained)
        self._shown, self._has_held_out, warnings = self._read_shown_audio(songs)
        self.warnings = (*songs.warnings, *left_out_warnings(self._crops.skipped, "training"), *warnings)
        self.record = RunRecord(
            settings,
            self._config,
            len(songs.trained.songs),
            songs.digest,
            start.fingerprint() if start else None,
            self._bandwidths,
            fine_tuned=start is not None,
        )

    def trainer(self) -> Trainer:
        """See `TrainingPart`."""
        vqvae = self._initial_model()
        settings = self._request.settings
        rule = UpdateRule(threshold=settings.revival_threshold, share=_REVIVAL_SHARE)
        objective = VQVAEObjective(vqvae, settings.loss, self._bandwidths, rule, self._workers, self._levels)
        others = [level for level in range(self._config.vqvae.levels) if level not in self._levels]
        idle = [f"model.{part}.{level}." for level in others for part in ("encoders", "decoders")]
        trainer = Trainer(objective, settings, self._batch, self._workers, idle)
        if self._start and not settings.anew:
            trainer.state = pack_codebooks(dict(self._restored_codebooks(vqvae)))
        return trainer

    def _initial_model(self) -> VQVAE:
        """Return the model before training: new weights, those of the bundle, or for each level one or the other."""
        torch.manual_seed(self._request.settings.seed)
        fresh = build_vqvae(self._config.vqvae)
        if self._start is None:
            return fresh
        vqvae = self._start.load_vqvae()
        if self._request.settings.anew:
            for level in self._levels:
                vqvae.encoders[level], vqvae.decoders[level] = fresh.encoders[level], fresh.decoders[level]
        return vqvae

    @torch.no_grad()
    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Compute signal-to-noise ratio, spectral convergence and code use of each level on held-out songs.

        Every process computes all of it, with the same result.
        """
        if not self._has_held_out:
            return {}
        audio, model = self._on_device(self._shown), self._trained_model(trained)
        metrics: dict[str, float] = {}
        for level in range(self._config.vqvae.levels):
            codes = model.encode(audio, level)
            found = _metrics(audio, model.decode(codes, level), codes, self._config)
            metrics |= {f"{name}_{level}": value for name, value in found.items()}
        return metrics

    @torch.no_grad()
    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """Write the first few assessed crops and their reconstructions by each level."""
        audio, model = self._on_device(self._shown[:_REPORTED_CROPS]), self._trained_model(trained)
        sounds = {"original": audio}
        for level in range(self._config.vqvae.levels):
            sounds[f"level {level}"] = model.decode(model.encode(audio, level), level)
        for crop in range(len(audio)):
            by_title = {title: sound[crop, 0].cpu().numpy() for title, sound in sounds.items()}
            write_sounds(folder, f"crop_{crop}", by_title, self._rate)

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """See `TrainingPart`."""
        weights = {**trained.weights, **self._codebooks(trained)}
        began_with = component_source(self._start, VQVAE_COMPONENT) if self._start else None
        return write_trained_bundle(out, self._config, {VQVAE_COMPONENT: weights}, self.record, began_with=began_with)

    @property
    def _rate(self) -> int:
        return self._config.vqvae.sample_rate

    @property
    def _top_hop(self) -> int:
        return self._config.vqvae.hop_lengths[-1]

    def _batch(self, number: int) -> dict[str, np.ndarray]:
        return {"audio": self._crops.batch(number)}

    def _read_shown_audio(self, songs: Songs) -> tuple[Tensor, bool, tuple[str, ...]]:
        """Return crops `[B, 1, T]` for metrics and reports, whether they are of held-out songs, and warnings.

        They are read before training begins, so that songs that are too short or damaged cannot end the run after it.
        """
        crops = self._shown_crops(songs.held_out)
        if crops is not None:
            audio = torch.from_numpy(crops.batch(0))
            return audio, True, left_out_warnings(crops.skipped, "the held-out metrics and reports")
        of_trained = self._shown_crops(songs.trained)
        assert of_trained is not None  # examples, which are long enough, are cut from these songs
        return torch.from_numpy(of_trained.batch(0)), False, self._too_short(songs.held_out)

    def _shown_crops(self, songs: Catalogue) -> AudioCrops | None:
        """Return the crops for metrics and reports, as long as the shortest song allows, at most `_ASSESSED_SECONDS`.

        Songs too short for spectral convergence are left out; the result is `None` if all of them are.
        """
        lengths = [song.samples_at(self._rate) // self._top_hop * self._top_hop for song in songs.songs]
        usable = [length for length in lengths if length >= _SPECTRUM_SAMPLES]
        if not usable:
            return None
        longest = whole_samples(_ASSESSED_SECONDS, self._config.vqvae)
        return self._make_crops(songs, min(longest, *usable), _ASSESSED_CROPS, 0, 1)

    def _too_short(self, held_out: Catalogue) -> tuple[str, ...]:
        """Return a warning about held-out songs that are all too short; none if there are none at all."""
        if not held_out.songs:
            return ()
        longest = max(song.seconds for song in held_out.songs)
        least = _least_seconds(_SPECTRUM_SAMPLES, self._config)
        return (
            f"there are no held-out metrics, and reports are about songs that are trained on: the longest of the "
            f"{len(held_out.songs)} held-out songs has {longest:.3f} s, and their spectra need {least:.3f} s.",
        )

    def _make_crops(self, songs: Catalogue, length: int, batch: int, rank: int, workers: int) -> AudioCrops:
        run = self._request.settings
        settings = CropSettings(self._rate, length, batch, run.seed, unit=self._top_hop if run.aligned else 1)
        return AudioCrops(songs, settings, rank, workers)

    def _estimate_bandwidths(self, songs: Catalogue) -> Bandwidths:
        """Estimate the constants from the batches that a single process would get: the same in all processes."""
        crops = self._make_crops(songs, self.example_length, self._request.settings.examples(1), 0, 1)
        batches = (torch.from_numpy(crops.batch(number)) for number in range(crops.batches_per_epoch))
        return estimate_bandwidths(batches, self._rate)

    def _restored_codebooks(self, vqvae: VQVAE) -> Iterator[tuple[int, CodebookState]]:
        """Yield the codebooks of a bundle by level, as states to continue training with."""
        samples = self.example_length * self._workers.count  # of one example per process (specification 2.5)
        for level in self._levels:
            codes = cast(Codebook, vqvae.codebooks[level]).codes
            hop = self._config.vqvae.hop_length(level)
            tokens = samples // hop
            if tokens < len(codes):  # so few tokens would make all codes seem unused; take those of the whole batch
                tokens = self.example_length * self._request.settings.batch // hop
            yield level, restore_codebook(codes, tokens)

    def _codebooks(self, trained: TrainedWeights) -> dict[str, Tensor]:
        """Return the trained codebooks by their names in the model."""
        return {f"codebooks.{level}.codes": trained.state[f"codes.{level}"] for level in self._levels}

    def _trained_model(self, trained: TrainedWeights) -> VQVAE:
        """Return a VQ-VAE with the trained weights and codebooks, on this process's device."""
        model = build_vqvae(self._config.vqvae)
        model.load_state_dict({**trained.weights, **self._codebooks(trained)})
        return model.eval().to(self._workers.device)

    def _on_device(self, audio: Tensor) -> Tensor:
        return audio.to(self._workers.device)


def _least_seconds(samples: int, config: JukeboxConfig) -> float:
    """Return the shortest length, in milliseconds rounded up, whose whole top-level codes have that many samples."""
    hop = config.vqvae.hop_lengths[-1]
    return math.ceil(1000 * math.ceil(samples / hop) * hop / config.vqvae.sample_rate) / 1000


def _example_samples(settings: RunSettings, config: JukeboxConfig) -> int:
    """Return the length of an example in samples; raise `TrainingError` if it is too short for the losses."""
    seconds = _SECONDS if settings.seconds is None else settings.seconds
    samples = whole_samples(seconds, config.vqvae)
    needed = max(_SPECTRUM_SAMPLES, settings.loss.linf_samples if settings.loss.linf else 0)
    if samples < needed:
        raise TrainingError(
            f"seconds: an example of {seconds:g} s has {samples} samples in whole top-level codes, but the losses need "
            f"{needed}; give {_least_seconds(needed, config):.3f} s or more."
        )
    return samples


def _metrics(audio: Tensor, output: Tensor, codes: Tensor, config: JukeboxConfig) -> dict[str, float]:
    use = code_use(code_counts(codes, config.vqvae.codebook_size))
    return {
        "snr_decibel": error_energy(audio, output).decibels,
        "spectral_convergence": float(spectral_convergence(audio, output).mean()),
        "codes_used": float(use.used),
        "perplexity": use.perplexity,
    }


def _require_levels(loss: LossSettings, config: JukeboxConfig) -> None:
    """Raise `ConfigError` for weights of levels that the model lacks."""
    if len(loss.waveform) > config.vqvae.levels:
        raise ConfigError(
            f"waveform weight: there is no level {len(loss.waveform) - 1}; {config.name} has levels 0 to "
            f"{config.vqvae.levels - 1}."
        )


def _trained_levels(settings: RunSettings, config: JukeboxConfig, start: CheckpointBundle | None) -> tuple[int, ...]:
    """Return the levels to train, in ascending order.

    Raises `ConfigError` for levels that the model lacks, and if no bundle has the weights of the others.
    """
    known = tuple(range(config.vqvae.levels))
    if unknown := [level for level in settings.levels if level not in known]:
        raise ConfigError(f"levels: there is no level {unknown[0]}; {config.name} has levels 0 to {known[-1]}.")
    if settings.levels and start is None:
        raise ConfigError("levels: those that are not trained come from a checkpoint bundle; name it.")
    if settings.anew and not settings.levels:
        raise ConfigError("anew: name the levels that begin anew; without a bundle all do.")
    return tuple(sorted(set(settings.levels))) or known
