"""Training of the top prior and the upsamplers on windows of codes: their data, metrics, reports and bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT, prior_component
from jukebox_deploy.checkpoints.layout import without_weights
from jukebox_deploy.config import JukeboxConfig, LabelRules
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.data.catalogue import Catalogue
from jukebox_deploy.data.code_cache import CodeCache, CodedSongs
from jukebox_deploy.data.windows import CodeWindows, WindowSettings
from jukebox_deploy.engines.eager.engine import EagerEngine, GraphFunction
from jukebox_deploy.errors import ConfigError, DataError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.evaluation.token_scoring import score_with_model
from jukebox_deploy.jobs.sampling_advice import NO_ADVICE, bundle_advice
from jukebox_deploy.jobs.song_codes import code_cache, encode_songs, weights_digest
from jukebox_deploy.jobs.training.bundle import component_source, write_trained_bundle
from jukebox_deploy.jobs.training.fine_tuning import fit_label_tables, initial_weights, vocabulary_of
from jukebox_deploy.jobs.training.left_out import first_warnings, left_out_warnings
from jukebox_deploy.jobs.training.request import Songs, TrainingEvent, TrainingListener, TrainRequest
from jukebox_deploy.jobs.training.samples import write_samples
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.labels.vocabulary_files import find_vocabulary, read_vocabulary
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.training.metrics import TokenScore
from jukebox_deploy.training.objective import PriorObjective
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import Part
from jukebox_deploy.training.trainer import TrainedWeights, Trainer
from jukebox_deploy.training.workers import Workers

_ASSESSED_WINDOWS = 32
"""Held-out windows that are scored; the same ones for every batch size and number of processes."""


class PriorTraining:
    """A top prior or an upsampler as a `TrainingPart`."""

    examples = "codes"

    def __init__(self, request: TrainRequest, workers: Workers, listen: TrainingListener) -> None:
        """Read the songs, and have the first process encode those that have no codes yet.

        Raises `DataError`, `LabelError`, `ConfigError` or `SamplingError` for songs, labels and settings that do not
        fit.
        """
        self._request, self._workers = request, workers
        self._bundle = request.open_bundle()
        self._advice = bundle_advice(self._bundle) if request.fine_tune else NO_ADVICE
        songs = Songs.read(request)
        base = request.model(self._bundle if request.fine_tune else None)
        prior = base.prior(_level(request, base))
        self._vocabulary = Vocabulary()
        if prior.labels:
            self._vocabulary = training_vocabulary(request, self._bundle, songs, prior.labels.rules)
        self._prior = fit_label_tables(prior, self._vocabulary)
        self._config = replace(base, vqvae=self._bundle.config.vqvae, priors=(self._prior,))
        self._cache = self._open_cache()
        self.example_length = self._prior.window
        settings = request.settings
        share = settings.examples(workers.count)  # refuses batches that cannot be divided, before songs are encoded
        trained, held_out = (self._encoded(side, listen) for side in (songs.trained, songs.held_out))
        self._windows = self._make_windows(trained, share, workers.rank, workers.count)
        held_out_windows, warnings = self._held_out_windows(held_out)
        found = held_out_windows.evaluation_windows(_ASSESSED_WINDOWS) if held_out_windows else []
        self._held_out = [batch for _, batch in found]
        self._shown = (held_out_windows or self._windows).songs
        self.warnings = (*songs.warnings, *_warnings_about(self._windows), *warnings)
        self.record = RunRecord(
            settings,
            self._config,
            len(songs.trained.songs),
            songs.digest,
            source=self._bundle.fingerprint(),
            fine_tuned=request.fine_tune,
            vocabulary=_digest(self._vocabulary),
        )

    def trainer(self) -> Trainer:
        """See `TrainingPart`."""
        settings = self._request.settings
        torch.manual_seed(settings.seed)
        model = build_prior(self._prior)
        if self._request.fine_tune:
            source = self._bundle.tensors(prior_component(self._prior.level))
            vocabularies = (self._bundle.vocabulary, self._vocabulary)
            model.load_state_dict(initial_weights(model.state_dict(), source, self._prior.labels, *vocabularies))
        objective = PriorObjective(model, self._prior)
        return Trainer(objective, settings, self._windows.batch, self._workers)

    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Compute the bits per code and, if the prior predicts lyrics, per lyric token, of held-out windows.

        The windows are divided among the processes.
        """
        if not self._held_out:
            return {}
        own = self._held_out[self._workers.rank :: self._workers.count]
        score = score_with_model(self._trained_model(trained), self._prior, own, lambda done, total: None)
        lyrics = score.lyrics or TokenScore()
        counted = [score.music.bits, score.music.tokens, lyrics.bits, lyrics.tokens]
        sums = self._workers.sum(torch.tensor(counted, dtype=torch.float64, device=self._workers.device))
        bits, tokens, lyric_bits, lyric_tokens = sums.tolist()
        return {"bits": bits / tokens} | ({"lyric_bits": lyric_bits / lyric_tokens} if lyric_tokens else {})

    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """Write samples with the labels of songs, beside the songs themselves."""
        engine = self._engine(self._trained_model(trained), self._workers.device)
        write_samples(folder, engine, self._vocabulary, self._shown, self._request.settings.seed)

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """See `TrainingPart`."""
        vqvae, own = self._bundle.tensors(VQVAE_COMPONENT), prior_component(self._prior.level)
        weights = {VQVAE_COMPONENT: {name: vqvae.load(name) for name in vqvae.infos}, own: dict(trained.weights)}
        began_with = component_source(self._bundle, own) if self._request.fine_tune else None
        names = self._vocabulary
        return write_trained_bundle(out, self._config, weights, self.record, names, began_with, self._advice)

    def _trained_model(self, trained: TrainedWeights) -> Prior:
        """Return a prior with the trained weights, on this process's device; on a CPU, it shares their memory."""
        with without_weights():
            model = build_prior(self._prior)
        model.load_state_dict(dict(trained.weights), assign=True)
        return model.to(self._workers.device)

    def _held_out_windows(self, songs: CodedSongs) -> tuple[CodeWindows | None, tuple[str, ...]]:
        """Return the windows of the held-out songs, and warnings; `None` if there are no windows."""
        if not songs.songs and not songs.skipped:
            return None, ()
        try:
            windows = self._make_windows(songs, 1)
        except DataError as error:  # for instance, all songs are too short
            return None, (f"there are no held-out metrics, and reports are about songs that are trained on. {error}",)
        return windows, left_out_warnings(windows.skipped, "the held-out metrics and reports")

    def _engine(self, model: Prior | None = None, device: torch.device | None = None) -> EagerEngine:
        """Return an engine with the bundle's VQ-VAE and, if given, a prior; by default on the CPU."""
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

    def _encoded(self, songs: Catalogue, listen: TrainingListener) -> CodedSongs:
        """Return songs as codes; the first process encodes those that have none, while the others wait.

        Only the first process knows why songs could not be encoded.
        """
        if not self._workers.first:
            self._workers.wait()
            return self._cache.coded_songs(songs)

        def report(done: int, total: int) -> None:
            listen(TrainingEvent("encoding songs", done, total))

        coded = encode_songs(songs, self._engine(), self._cache, report)
        self._workers.wait()
        return coded

    def _make_windows(self, songs: CodedSongs, batch: int, rank: int = 0, workers: int = 1) -> CodeWindows:
        settings = WindowSettings(batch, self._request.settings.seed)
        return CodeWindows(songs, self._prior, self._config.vqvae, self._vocabulary, settings, rank, workers)


def _warnings_about(windows: CodeWindows) -> tuple[str, ...]:
    """Return warnings about songs that are left out of training, and about labels that the prior does not know."""
    return (*left_out_warnings(windows.skipped, "training"), *first_warnings(windows.warnings, "labels"))


def _digest(vocabulary: Vocabulary) -> str:
    """Return a hash of the lists of artists and genres."""
    return hashlib.sha256(json.dumps(vocabulary.to_json(), sort_keys=True).encode()).hexdigest()


def training_vocabulary(request: TrainRequest, bundle: CheckpointBundle, songs: Songs, rules: LabelRules) -> Vocabulary:
    """Return the lists of artists and genres that a prior is trained with.

    These are the first that exist of: the lists of the request, those of the bundle to fine-tune, those in the folder
    of songs, and lists of all names in the labels of the songs. Raises `LabelError` for lists that cannot be read.
    """
    if request.vocabulary is not None:
        return read_vocabulary(request.vocabulary)
    if request.fine_tune and bundle.vocabulary.lists:
        return bundle.vocabulary
    found = find_vocabulary(request.data)
    if found is not None and rules in found.lists:
        return Vocabulary({rules: found.lists[rules]})
    return vocabulary_of((*songs.trained.songs, *songs.held_out.songs), rules)


def _level(request: TrainRequest, config: JukeboxConfig) -> int:
    """Return the level to train; raise `ConfigError` if it cannot be the level of such a prior."""
    if request.settings.part is Part.PRIOR:
        return config.top_level
    level = request.settings.level
    if level is None or not 0 <= level < config.top_level:
        raise ConfigError(f"level: an upsampler is at level 0 to {config.top_level - 1}, found {level}.")
    return level
