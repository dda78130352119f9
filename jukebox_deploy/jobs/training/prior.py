"""Training of the top prior and the upsamplers: windows of codes in, the next code out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.layout import VQVAE_COMPONENT, prior_component
from jukebox_deploy.config import JukeboxConfig, LabelRules
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.data.code_cache import CodeCache, CodedSongs
from jukebox_deploy.data.windows import CodeWindows, WindowBatch, WindowSettings
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.errors import ConfigError, DataError, LabelError, TrainingError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.evaluation.token_scoring import score_with_model
from jukebox_deploy.jobs.sampling_advice import NO_ADVICE, bundle_advice
from jukebox_deploy.jobs.song_codes import code_cache, encode_songs, weights_digest
from jukebox_deploy.jobs.training.bundle import component_source, write_trained_bundle
from jukebox_deploy.jobs.training.fine_tuning import begin_with, fit_label_tables, vocabulary_of
from jukebox_deploy.jobs.training.request import Songs, TrainingEvent, TrainingListener, TrainRequest, sample_indices
from jukebox_deploy.jobs.training.samples import write_samples
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.labels.vocabulary_files import read_vocabulary
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.presets import preset
from jukebox_deploy.training.metrics import TokenScore
from jukebox_deploy.training.objective import PriorObjective
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import Part
from jukebox_deploy.training.trainer import TrainedWeights, Trainer
from jukebox_deploy.training.workers import Workers

_ASSESSED_WINDOWS = 32
"""Held-out windows whose bits are measured; the same ones whatever the batch and the number of processes."""


class PriorTraining:
    """A `TrainingPart`."""

    examples = "codes"

    def __init__(self, request: TrainRequest, workers: Workers, listen: TrainingListener) -> None:
        """Encodes the songs that are not encoded yet.

        Raises `DataError`, `LabelError`, `ConfigError`, `SamplingError` for songs, labels and settings that do not fit.
        """
        self._request, self._workers = request, workers
        self._bundle = request.open_bundle()
        self._advice = bundle_advice(self._bundle) if request.fine_tune else NO_ADVICE
        self._songs = Songs.read(request)
        base = _base_config(request, self._bundle)
        prior = base.prior(_level(request, base))
        self._vocabulary = Vocabulary()
        if prior.labels:
            self._vocabulary = training_vocabulary(request, self._bundle, self._songs, prior.labels.rules)
        self._prior = fit_label_tables(prior, self._vocabulary)
        self._config = replace(base, vqvae=self._bundle.config.vqvae, priors=(self._prior,))
        self._cache = self._open_cache()
        self._encode(listen)
        self.example_length = self._prior.window
        settings = request.settings
        self._windows = self._make_windows(
            self._coded(self._songs.trained), settings.examples(workers.count), workers.rank, workers.count
        )
        self._held_out, self.warnings = self._held_out_windows()
        self.record = RunRecord(
            settings,
            self._config,
            len(self._songs.trained.songs),
            self._songs.digest,
            source=self._bundle.fingerprint(),
            fine_tuned=request.fine_tune,
        )

    def trainer(self) -> Trainer:
        """See `TrainingPart`."""
        settings = self._request.settings
        torch.manual_seed(settings.seed)
        model = build_prior(self._prior)
        if self._request.fine_tune:
            source = self._bundle.tensors(prior_component(self._prior.level))
            names = (self._bundle.vocabulary, self._vocabulary)
            model.load_state_dict(begin_with(model.state_dict(), source, self._prior.labels, *names))
        objective = PriorObjective(model, self._prior)
        return Trainer(objective, settings, self._windows.batch, self._workers)

    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Bits per code and, if the prior learns lyrics, per lyric token; each process scores some of the windows."""
        if not self._held_out:
            return {}
        own = self._held_out[self._workers.rank :: self._workers.count]
        score = score_with_model(self._filled(trained), self._prior, own, lambda done, total: None)
        lyrics = score.lyrics or TokenScore()
        counted = [score.music.bits, score.music.tokens, lyrics.bits, lyrics.tokens]
        sums = self._workers.sum(torch.tensor(counted, dtype=torch.float64, device=self._workers.device))
        bits, tokens, lyric_bits, lyric_tokens = sums.tolist()
        return {"bits": bits / tokens} | ({"lyric_bits": lyric_bits / lyric_tokens} if lyric_tokens else {})

    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """Sample a few windows with the labels of songs."""
        songs = self._coded(self._songs.shown).songs
        engine = self._engine(self._filled(trained), self._workers.device)
        write_samples(folder, engine, self._vocabulary, songs, self._request.settings.seed)

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """See `TrainingPart`."""
        vqvae, own = self._bundle.tensors(VQVAE_COMPONENT), prior_component(self._prior.level)
        weights = {VQVAE_COMPONENT: {name: vqvae.load(name) for name in vqvae.infos}, own: dict(trained.weights)}
        began_with = component_source(self._bundle, own) if self._request.fine_tune else None
        names = self._vocabulary
        return write_trained_bundle(out, self._config, weights, self.record, names, began_with, self._advice)

    def _filled(self, trained: TrainedWeights) -> Prior:
        """A prior with trained weights, on this process's device."""
        model = build_prior(self._prior)
        model.load_state_dict(dict(trained.weights))
        return model.to(self._workers.device)

    def _held_out_windows(self) -> tuple[Sequence[WindowBatch], tuple[str, ...]]:
        """Some windows of the held-out songs, one in each batch, and warnings."""
        if not self._songs.held_out.songs:
            return (), self._songs.warnings
        try:
            windows = self._make_windows(self._coded(self._songs.held_out), 1).evaluation_windows()
        except DataError as error:  # for instance, all are too short
            return (), (f"there are no held-out metrics: {error}",)
        return [windows[index] for index in sample_indices(len(windows), _ASSESSED_WINDOWS).tolist()], ()

    def _engine(self, model: Prior | None = None, device: torch.device | None = None) -> EagerEngine:
        """The VQ-VAE of the bundle, and the prior as it stands, behind the contract of engines."""
        place = device or torch.device("cpu")
        vqvae = self._bundle.load_vqvae().to(place)
        config = self._config if model is not None else replace(self._config, priors=())

        def open_graph(spec: GraphSpec) -> GraphFunction:
            part = vqvae if spec.model_level is None else model
            assert part is not None
            return graph_module(spec, part)

        return EagerEngine(config, declare_graphs(config), open_graph, str(place))

    def _open_cache(self) -> CodeCache:
        folder = self._request.codes or self._request.out.with_name(f"{self._request.out.name}-codes")
        return code_cache(folder, weights_digest(self._bundle.tensors(VQVAE_COMPONENT)), self._config.vqvae)

    def _encode(self, listen: TrainingListener) -> None:
        """Have all songs encoded, by the first process."""
        if self._workers.first:
            engine = self._engine()

            def tell(done: int, total: int) -> None:
                listen(TrainingEvent("encoding songs", done, total))

            for songs in (self._songs.trained, self._songs.held_out):
                encode_songs(songs, engine, self._cache, tell)
        self._workers.wait()

    def _coded(self, songs: Catalogue) -> CodedSongs:
        return self._cache.coded_songs(songs)

    def _make_windows(self, songs: CodedSongs, batch: int, rank: int = 0, workers: int = 1) -> CodeWindows:
        settings = WindowSettings(batch, self._request.settings.seed)
        return CodeWindows(songs, self._prior, self._config.vqvae, self._vocabulary, settings, rank, workers)


def training_vocabulary(request: TrainRequest, bundle: CheckpointBundle, songs: Songs, rules: LabelRules) -> Vocabulary:
    """The names that a prior is to know: those that were asked for, or that lie beside the songs, or in their labels.

    A bundle that is fine-tuned keeps its names unless others were asked for.
    """
    if request.vocabulary is not None:
        return read_vocabulary(request.vocabulary)
    if request.fine_tune and bundle.vocabulary.lists:
        return bundle.vocabulary
    try:
        found = read_vocabulary(request.data)
    except LabelError:
        found = Vocabulary()
    if rules in found.lists:
        return Vocabulary({rules: found.lists[rules]})
    return vocabulary_of((*songs.trained.songs, *songs.held_out.songs), rules)


def _base_config(request: TrainRequest, bundle: CheckpointBundle) -> JukeboxConfig:
    """The model: the bundle's when it is fine-tuned, otherwise a preset's."""
    if request.fine_tune:
        return bundle.config
    if request.preset is None:
        raise TrainingError("name the model to train: a preset, or a bundle to fine-tune.")
    return preset(request.preset)


def _level(request: TrainRequest, config: JukeboxConfig) -> int:
    """The level that is trained; `ConfigError` for one that this part of the model is not at."""
    if request.settings.part is Part.PRIOR:
        return config.top_level
    level = request.settings.level
    if level is None or not 0 <= level < config.top_level:
        raise ConfigError(f"level: an upsampler is at level 0 to {config.top_level - 1}, found {level}.")
    return level
