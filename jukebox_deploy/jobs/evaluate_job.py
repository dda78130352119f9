"""Evaluation: measure how well a VQ-VAE reconstructs held-out songs, and how well priors predict them.

Several bundles of one checkpoint are scored on the same windows; the difference in bits per token is the cost of a
precision or of quantised weights.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import VQVAE_GRAPHS, GraphKind, graph_name
from jukebox_deploy.data.catalogue import Catalogue, songs_digest
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.evaluation.bundles import EvaluatedBundle, open_evaluated
from jukebox_deploy.jobs.evaluation.code_frequencies import FrequencyScore
from jukebox_deploy.jobs.evaluation.data import (
    DataChoice,
    PriorWindows,
    evaluation_windows,
    pieces_of_sound,
    some_songs,
)
from jukebox_deploy.jobs.evaluation.reconstruction import LevelMeasurement, LevelQuality
from jukebox_deploy.jobs.evaluation.token_scoring import PriorScore
from jukebox_deploy.jobs.song_codes import code_cache, encode_songs
from jukebox_deploy.training.metrics import TokenScore

ACCEPTED_COST = 0.01
"""Relative increase in bits per token over the first bundle above which a bundle is marked as costly."""

Listener = Callable[[str, float, float], None]
"""Called with the name of an activity, the amount done and the total."""


@dataclass(frozen=True)
class EvaluationRequest:
    """The bundles to evaluate, and the data to evaluate them on."""

    bundles: tuple[Path, ...]  # checkpoint or engine bundles; all are compared with the first
    data: DataChoice
    codes: Path | None = None  # folder that keeps encoded songs; default: a temporary one
    threads: int | None = None  # CPU threads; default: as many as speed it up


@dataclass(frozen=True)
class PriorResult:
    """The score of a bundle on the windows of one prior."""

    level: int
    windows: int
    score: PriorScore | None
    not_run: str = ""  # why there is no score

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        data: dict[str, Any] = {"level": self.level, "windows": self.windows, "not_run": self.not_run or None}
        if self.score is not None:
            data |= _score_to_json(self.score.music)
            data["lyrics"] = None if self.score.lyrics is None else _score_to_json(self.score.lyrics)
        return data


@dataclass(frozen=True)
class BundleResult:
    """The scores of a bundle for all priors."""

    bundle: str
    backend: str
    precision: str
    weights: str
    priors: tuple[PriorResult, ...]
    checkpoint: str = ""  # its fingerprint

    def prior(self, level: int) -> PriorResult | None:
        """The result for a level, if the bundle has that prior."""
        return next((result for result in self.priors if result.level == level), None)


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation."""

    data: DataChoice
    songs: int  # number of songs available for evaluation
    levels: tuple[LevelQuality, ...]  # of the first bundle's VQ-VAE; empty if it cannot decode
    bundles: tuple[BundleResult, ...]
    notes: tuple[str, ...] = ()  # on songs and their labels
    songs_digest: str = ""  # see `songs_digest`
    by_frequency: tuple[FrequencyScore, ...] = ()  # baseline that the priors have to beat, by level

    def frequency_score(self, level: int) -> FrequencyScore | None:
        """Return the score of predicting codes by frequency alone at a level; `None` if there is only one song."""
        return next((entry for entry in self.by_frequency if entry.level == level), None)

    def cost(self, bundle: BundleResult, level: int) -> float | None:
        """Return the relative increase in bits per token over the first bundle; `None` if either has no score."""
        first, other = self.bundles[0].prior(level), bundle.prior(level)
        if first is None or other is None or first.score is None or other.score is None:
            return None
        return other.score.music.bits_per_token / first.score.music.bits_per_token - 1

    def is_costly(self, bundle: BundleResult, level: int) -> bool:
        """Whether the cost exceeds `ACCEPTED_COST` or is NaN."""
        cost = self.cost(bundle, level)
        return cost is not None and not cost <= ACCEPTED_COST

    def to_json(self) -> dict[str, Any]:
        """Return plain data; infinities and NaN become null."""
        choice = self.data
        return {
            "data": str(choice.folder),
            "held_out": choice.held_out,
            "train_fraction": choice.train_fraction if choice.held_out else None,
            "songs": self.songs,
            "songs_digest": self.songs_digest,
            "seconds": choice.seconds,
            "windows": choice.windows,
            "coded_songs": min(choice.coded_songs, self.songs),
            "notes": list(self.notes),
            "accepted_cost": ACCEPTED_COST,
            "levels": [_finite(level.to_json()) for level in self.levels],
            "by_frequency": [entry.to_json() for entry in self.by_frequency],
            "bundles": [self._bundle_to_json(bundle) for bundle in self.bundles],
        }

    def _bundle_to_json(self, bundle: BundleResult) -> dict[str, Any]:
        return {
            "bundle": bundle.bundle,
            "checkpoint": bundle.checkpoint,
            "backend": bundle.backend,
            "precision": bundle.precision,
            "weights": bundle.weights,
            "priors": [
                _finite(
                    {
                        **result.to_json(),
                        "cost": self.cost(bundle, result.level),
                        "costly": self.is_costly(bundle, result.level),
                    }
                )
                for result in bundle.priors
            ],
        }


def evaluate(request: EvaluationRequest, listen: Listener = lambda what, done, total: None) -> Evaluation:
    """Evaluate bundles; those that cannot run on this machine are listed with the reason.

    Raises:
        CheckpointError, EngineError: for folders that are not bundles, or bundles from different checkpoints.
        DataError, LabelError, AudioError: for songs and labels that do not fit the model.
    """
    bundles = open_evaluated(request.bundles, request.threads)
    _require_one_checkpoint(bundles)
    songs = request.data.songs()
    levels = tuple(_levels(bundles[0], songs, request.data.seconds, listen))
    windows = _windows(request, bundles, songs, listen)
    results = tuple(_result(bundle, windows, listen) for bundle in bundles)
    left_out = [f"{file.name} is left out: {file.reason}" for file in songs.skipped]
    notes = dict.fromkeys([*left_out, *(note for entry in windows.values() for note in entry.notes)])
    by_frequency = tuple(entry.by_frequency for entry in windows.values() if entry.by_frequency is not None)
    digest = songs_digest(songs.songs)
    return Evaluation(request.data, len(songs.songs), levels, results, tuple(notes), digest, by_frequency)


def _require_one_checkpoint(bundles: Sequence[EvaluatedBundle]) -> None:
    for bundle in bundles[1:]:
        if bundle.checkpoint != bundles[0].checkpoint:
            raise EngineError(
                f"{bundle.folder} comes from the checkpoint {bundle.checkpoint[:12]}…, {bundles[0].folder} from "
                f"{bundles[0].checkpoint[:12]}…; their codes are not comparable. Evaluate them one by one."
            )


def _levels(bundle: EvaluatedBundle, songs: Catalogue, seconds: float, listen: Listener) -> Iterator[LevelQuality]:
    """Measure the levels that the bundle can encode and decode."""
    graphs = bundle.engine.graphs
    for level in range(bundle.config.vqvae.levels):
        if any(graph_name(kind, level) not in graphs for kind in VQVAE_GRAPHS):
            continue
        measurement, done = LevelMeasurement(bundle.engine, level), 0.0
        for audio in pieces_of_sound(songs, bundle.config, seconds):
            measurement.add(audio)
            done += len(audio) / bundle.config.vqvae.sample_rate
            listen(f"seconds of sound, level {level}", done, max(done, seconds))
        yield measurement.quality()


def _windows(
    request: EvaluationRequest, bundles: Sequence[EvaluatedBundle], songs: Catalogue, listen: Listener
) -> dict[int, PriorWindows]:
    """Read windows into memory, for every prior that any of the bundles has."""
    first, count = bundles[0], request.data.windows
    levels = sorted({prior.level for bundle in bundles for prior in bundle.config.priors})
    if not levels:
        return {}
    _require_encoder(first)
    with _code_folder(request.codes) as folder:
        chosen = some_songs(songs, request.data.coded_songs)
        cache = code_cache(folder, first.vqvae, first.config.vqvae)
        coded = encode_songs(chosen, first.engine, cache, partial(listen, "songs encoded"))
        return {level: evaluation_windows(coded, first.config, level, first.vocabulary, count) for level in levels}


def _require_encoder(bundle: EvaluatedBundle) -> None:
    names = [graph_name(GraphKind.VQVAE_ENCODE, level) for level in range(bundle.config.vqvae.levels)]
    if missing := [name for name in names if name not in bundle.engine.graphs]:
        raise EngineError(
            f"{bundle.folder} has no {', '.join(missing)} to encode songs with; add its checkpoint with --against."
        )


@contextmanager
def _code_folder(codes: Path | None) -> Iterator[Path]:
    if codes is not None:
        yield codes
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _result(bundle: EvaluatedBundle, windows: dict[int, PriorWindows], listen: Listener) -> BundleResult:
    def score(level: int) -> PriorResult:
        what = f"positions of prior {level}, {bundle.folder.name}"
        try:
            found = bundle.score(level, windows[level].batches, partial(listen, what))
        except EngineError as error:
            return PriorResult(level, len(windows[level].batches), None, str(error))
        return PriorResult(level, len(windows[level].batches), found)

    priors = tuple(score(prior.level) for prior in bundle.config.priors)
    kind = (bundle.backend, bundle.precision, bundle.weights)
    return BundleResult(str(bundle.folder), *kind, priors, bundle.checkpoint)


def _score_to_json(score: TokenScore) -> dict[str, Any]:
    return {"bits_per_token": score.bits_per_token, "top1": score.top1, "tokens": score.tokens}


def _finite(value: Any) -> Any:
    """Return plain data with `None` in place of infinities and NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
