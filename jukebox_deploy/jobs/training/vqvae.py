"""Training of the VQ-VAE: crops of songs in, reconstructions and codebooks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.data.crops import AudioCrops, CropSettings
from jukebox_deploy.errors import ConfigError, TrainingError
from jukebox_deploy.jobs.training.bundle import component_source, write_trained_bundle
from jukebox_deploy.jobs.training.request import Songs, TrainingListener, TrainRequest
from jukebox_deploy.jobs.training.sounds import write_sounds
from jukebox_deploy.models.bottleneck import Codebook, CodebookState, UpdateRule, restore_codebook
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings, spectral_convergence
from jukebox_deploy.models.vqvae import VQVAE
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.song import whole_samples
from jukebox_deploy.training.bandwidths import estimate_bandwidths
from jukebox_deploy.training.metrics import code_counts, code_use, error_energy
from jukebox_deploy.training.objective import VQVAEObjective, pack_codebooks
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import RunSettings
from jukebox_deploy.training.trainer import TrainedWeights, Trainer
from jukebox_deploy.training.workers import Workers

_ASSESSED_CROPS, _ASSESSED_SECONDS = 16, 4.0
_HEARD = 3  # of these crops
_REVIVAL_SHARE = 0.4
"""Of the latents that a code has on average: a code that has more does not start anew, however small the batch."""
_SECONDS = 393_216 / 44_100
"""Of an example, unless the user says otherwise: the paper's."""


class VQVAETraining:
    """A `TrainingPart`."""

    examples = "samples"

    def __init__(self, request: TrainRequest, workers: Workers, listen: TrainingListener) -> None:
        """Raises `DataError` for songs, `ConfigError` for settings that do not fit."""
        self._request, self._workers = request, workers
        self._songs = Songs.read(request)
        self.warnings = self._songs.warnings
        start = request.open_bundle() if request.fine_tune else None
        model = start.config if start else preset(_required(request.preset))
        self._config = JukeboxConfig(model.name, model.vqvae)
        self._start = start
        settings = request.settings
        _require_levels(settings.loss, self._config)
        self._levels = _trained_levels(settings, self._config, start)
        self.example_length = self._whole_codes(settings.seconds or _SECONDS)
        self._crops = self._make_crops(
            self._songs.trained, self.example_length, settings.examples(workers.count), workers.rank, workers.count
        )
        self._bandwidths = self._estimate()
        self.record = RunRecord(
            settings,
            self._config,
            len(self._songs.trained.songs),
            self._songs.digest,
            start.fingerprint() if start else None,
            self._bandwidths,
            fine_tuned=start is not None,
        )

    def trainer(self) -> Trainer:
        """See `TrainingPart`."""
        vqvae = self._first_weights()
        settings = self._request.settings
        rule = UpdateRule(threshold=settings.revival_threshold, share=_REVIVAL_SHARE)
        objective = VQVAEObjective(vqvae, settings.loss, self._bandwidths, rule, self._workers, self._levels)
        others = [
            part for level in range(self._config.vqvae.levels) if level not in self._levels for part in _parts(level)
        ]
        trainer = Trainer(objective, settings, self._batch, self._workers, others)
        if self._start and not settings.anew:
            trainer.state = pack_codebooks(dict(self._restored(vqvae)))
        return trainer

    def _first_weights(self) -> VQVAE:
        """What training begins with: fresh weights, a bundle's, or of each some levels."""
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
        """SNR, spectral convergence and code use of each level; all processes compute the same."""
        if not self._songs.held_out.songs:
            return {}
        audio, model = self._shown_audio(), self._filled(trained).to(self._workers.device)
        metrics: dict[str, float] = {}
        for level in range(self._config.vqvae.levels):
            codes = model.encode(audio, level)
            found = _metrics(audio, model.decode(codes, level), codes, self._config)
            metrics |= {f"{name}_{level}": value for name, value in found.items()}
        return metrics

    @torch.no_grad()
    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """The first few crops, and their reconstructions by each level."""
        audio, model = self._shown_audio()[:_HEARD], self._filled(trained).to(self._workers.device)
        sounds = {"original": audio}
        for level in range(self._config.vqvae.levels):
            sounds[f"level {level}"] = model.decode(model.encode(audio, level), level)
        for crop in range(len(audio)):
            heard = {name: sound[crop, 0].cpu().numpy() for name, sound in sounds.items()}
            write_sounds(folder, f"crop_{crop}", heard, self._rate)

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """See `TrainingPart`."""
        weights = self._filled(trained).state_dict()
        began_with = component_source(self._start, VQVAE_COMPONENT) if self._start else None
        return write_trained_bundle(out, self._config, {VQVAE_COMPONENT: weights}, self.record, began_with=began_with)

    @property
    def _rate(self) -> int:
        return self._config.vqvae.sample_rate

    def _batch(self, number: int) -> dict[str, np.ndarray]:
        return {"audio": self._crops.batch(number)}

    def _shown_audio(self) -> Tensor:
        """Crops of the songs that reports are about, `[B, 1, T]`, on this process's device."""
        songs = self._songs.shown
        length = self._whole_codes(min(_ASSESSED_SECONDS, min(song.seconds for song in songs.songs)))
        crops = self._make_crops(songs, length, _ASSESSED_CROPS, 0, 1).batch(0)
        return torch.from_numpy(crops).to(self._workers.device)

    def _make_crops(self, songs: Catalogue, length: int, batch: int, rank: int, workers: int) -> AudioCrops:
        run = self._request.settings
        unit = self._config.vqvae.hop_length(self._config.vqvae.levels - 1) if run.aligned else 1
        settings = CropSettings(self._rate, length, batch, run.seed, unit=unit)
        return AudioCrops(songs, settings, rank, workers)

    def _whole_codes(self, seconds: float) -> int:
        """Samples of a length, in whole top codes."""
        samples = whole_samples(seconds, self._config.vqvae)
        if samples == 0:
            raise TrainingError(f"seconds: {seconds} are less than one code of the top level; give more.")
        return samples

    def _estimate(self) -> Bandwidths:
        """From the first process's batches, so that all processes find the same."""
        settings = self._request.settings
        crops = self._make_crops(self._songs.trained, self.example_length, settings.examples(1), 0, 1)
        batches = (torch.from_numpy(crops.batch(number)) for number in range(crops.batches_per_epoch))
        return estimate_bandwidths(batches, self._rate)

    def _restored(self, vqvae: VQVAE) -> Iterator[tuple[int, CodebookState]]:
        samples = self.example_length * self._workers.count  # of one example per process (specification 2.5)
        for level in self._levels:
            codes = cast(Codebook, vqvae.codebooks[level]).codes
            hop = self._config.vqvae.hop_length(level)
            tokens = samples // hop
            if tokens < len(codes):  # by so few all codes would seem unused: take those of the whole batch
                tokens = self.example_length * self._request.settings.batch // hop
            yield level, restore_codebook(codes, tokens)

    def _filled(self, trained: TrainedWeights) -> VQVAE:
        """A VQ-VAE with trained weights and codebooks."""
        codebooks: dict[str, Tensor] = {
            f"codebooks.{level}.codes": trained.state[f"codes.{level}"] for level in self._levels
        }
        model = build_vqvae(self._config.vqvae)
        model.load_state_dict({**trained.weights, **codebooks})
        return model.eval()


def _metrics(audio: Tensor, output: Tensor, codes: Tensor, config: JukeboxConfig) -> dict[str, float]:
    use = code_use(code_counts(codes, config.vqvae.codebook_size))
    return {
        "snr_decibel": error_energy(audio, output).decibels,
        "spectral_convergence": float(spectral_convergence(audio, output).mean()),
        "codes_used": float(use.used),
        "perplexity": use.perplexity,
    }


def _require_levels(loss: LossSettings, config: JukeboxConfig) -> None:
    if len(loss.waveform) > config.vqvae.levels:
        raise ConfigError(
            f"waveform weight: there is no level {len(loss.waveform) - 1}; {config.name} has levels 0 to "
            f"{config.vqvae.levels - 1}."
        )


def _parts(level: int) -> tuple[str, str]:
    """What the names of a level's parameters begin with."""
    return f"model.encoders.{level}.", f"model.decoders.{level}."


def _trained_levels(settings: RunSettings, config: JukeboxConfig, start: CheckpointBundle | None) -> tuple[int, ...]:
    """The levels that are trained; raises `ConfigError` for those that there are not, or that nothing stands beside."""
    known = tuple(range(config.vqvae.levels))
    if odd := [level for level in settings.levels if level not in known]:
        raise ConfigError(f"levels: there is no level {odd[0]}; {config.name} has levels 0 to {known[-1]}.")
    if settings.levels and start is None:
        raise ConfigError("levels: those that are not trained come from a checkpoint bundle; name it.")
    if settings.anew and not settings.levels:
        raise ConfigError("anew: name the levels that begin anew; without a bundle all do.")
    return tuple(sorted(set(settings.levels))) or known


def _required(name: str | None) -> str:
    if name is None:
        raise TrainingError("name the model to train: a preset, or a bundle to fine-tune.")
    return name
