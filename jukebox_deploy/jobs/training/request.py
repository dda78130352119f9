"""What a training run is asked for, what a part of the model has to bring for it, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.data.catalogue import Catalogue, CatalogueFilters, read_catalogue, songs_digest
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
        """What the songs are, see `songs_digest`: those that are trained on, then those held out."""
        return songs_digest([*self.trained.songs, *self.held_out.songs])

    @property
    def shown(self) -> Catalogue:
        """The songs that reports are about: those held out, or those trained on if none are held out."""
        return self.held_out if self.held_out.songs else self.trained

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if no songs are held out."""
        if self.held_out.songs:
            return ()
        return (
            f"no song is held out ({len(self.trained.songs)} in all), so there are no held-out metrics, and reports "
            "are about songs that are trained on. Give more songs or a train fraction below 1.",
        )


class TrainingPart(Protocol):
    """What differs between the VQ-VAE and the priors."""

    record: RunRecord
    examples: str  # what a batch's examples consist of: "samples" or "codes"
    example_length: int  # of these
    warnings: tuple[str, ...]  # sentences for the user, before training begins

    def trainer(self) -> Trainer:
        """A trainer with fresh weights, or those that fine-tuning begins with."""

    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Compute metrics of held-out songs, none if there are no such songs; all processes must call it."""

    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """Write sounds and pictures to a folder; only the first process calls it, and it may take long."""

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """Write a checkpoint bundle; one that is there is replaced."""


@dataclass(frozen=True)
class TrainingEvent:
    """Where a run is; shown to people."""

    action: str  # "training", "assessing", "saving", …, "warning"
    step: int
    steps: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""  # a sentence, only of the action "warning"


TrainingListener = Callable[[TrainingEvent], None]


def sample_indices(total: int, count: int) -> np.ndarray:
    """Up to `count` numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
