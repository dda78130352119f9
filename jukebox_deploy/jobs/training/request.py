"""What a training run is asked for, what a part of the model has to bring for it, and what it tells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.data.catalogue import Catalogue, CatalogueFilters, read_catalogue
from jukebox_deploy.errors import TrainingError
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import Cadence, RunSettings
from jukebox_deploy.training.trainer import TrainedWeights, Trainer


@dataclass(frozen=True)
class TrainRequest:
    """A run: settings decide the numbers, the rest where things are."""

    settings: RunSettings
    data: Path  # folder of songs
    out: Path  # folder of the run
    preset: str | None = None  # or the model of `bundle`
    bundle: Path | None = None  # a checkpoint bundle: the VQ-VAE of a prior, and where fine-tuning begins
    fine_tune: bool = False  # begin with the bundle's weights of the part that is trained
    metadata: Path | None = None  # table of the songs, if it is not in their folder
    vocabulary: Path | None = None  # lists of artists and genres; default: the data's, or made from its labels
    codes: Path | None = None  # folder of songs that were encoded; default: in the run's folder
    filters: CatalogueFilters = field(default_factory=CatalogueFilters)
    cadence: Cadence = field(default_factory=Cadence)
    resume: bool = False

    def open_bundle(self) -> CheckpointBundle:
        """The bundle; `TrainingError` if none was named."""
        if self.bundle is None:
            raise TrainingError("a prior learns codes of a VQ-VAE: name the checkpoint bundle that has it.")
        return CheckpointBundle.open(self.bundle)


@dataclass(frozen=True)
class Songs:
    """The songs of a run, divided."""

    trained: Catalogue
    held_out: Catalogue  # may be empty

    @classmethod
    def read(cls, request: TrainRequest) -> Songs:
        """Find the songs; `DataError` if there are none."""
        catalogue = read_catalogue(request.data, request.filters, request.metadata)
        return cls(*catalogue.split(request.settings.train_fraction))

    @property
    def digest(self) -> str:
        """What the songs are: changes with their names, lengths and labels."""
        rows = [
            [song.name, song.samples, song.sample_rate, song.artist, list(song.genres), song.lyrics]
            for catalogue in (self.trained, self.held_out)
            for song in catalogue.songs
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


class TrainingPart(Protocol):
    """What differs between the VQ-VAE and the priors."""

    record: RunRecord
    examples: str  # what a batch's examples consist of: "samples" or "codes"
    example_length: int  # of these

    def trainer(self) -> Trainer:
        """A trainer with fresh weights, or those that fine-tuning begins with."""

    def assess(self, trained: TrainedWeights, folder: Path) -> Mapping[str, float]:
        """Metrics of held-out songs; sounds and pictures go to the folder."""

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """Write a checkpoint bundle; one that is there is replaced."""


@dataclass(frozen=True)
class TrainingEvent:
    """Where a run is; shown to people."""

    action: str  # "training", "assessing", "saving", …
    step: int
    steps: int
    numbers: Mapping[str, float] = field(default_factory=dict)


TrainingListener = Callable[[TrainingEvent], None]


def sample_indices(total: int, count: int) -> np.ndarray:
    """Up to `count` numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
