"""What a training run is asked to do, what each part of a model contributes to it, and the events that it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.data.catalogue import Catalogue, CatalogueFilters, read_catalogue, songs_digest
from jukebox_deploy.errors import DataError, TrainingError
from jukebox_deploy.jobs.training.left_out import left_out_warnings, reasons
from jukebox_deploy.presets import preset
from jukebox_deploy.training.run_folder import RunRecord
from jukebox_deploy.training.settings import Cadence, RunSettings
from jukebox_deploy.training.trainer import TrainedWeights, Trainer


@dataclass(frozen=True)
class TrainRequest:
    """A training run: the settings that determine its results, and where its data is and its results go."""

    settings: RunSettings
    data: Path  # folder of songs
    out: Path  # folder of the run
    preset: str | None = None  # the model; without it, the model of `bundle`
    bundle: Path | None = None  # checkpoint bundle: the VQ-VAE of a prior, and the weights to fine-tune
    fine_tune: bool = False  # begin with the bundle's weights of the part that is trained
    metadata: Path | None = None  # table of the songs, if it is not in their folder
    vocabulary: Path | None = None  # lists of artists and genres; default: those in `data`, or made from its labels
    codes: Path | None = None  # folder that keeps encoded songs; default: `OUT-codes`, beside the folder of the run
    filters: CatalogueFilters = field(default_factory=CatalogueFilters)
    cadence: Cadence = field(default_factory=Cadence)
    resume: bool = False  # continue the run in `out`

    def open_bundle(self) -> CheckpointBundle:
        """Open the checkpoint bundle; raise `TrainingError` if none was named."""
        if self.bundle is None:
            raise TrainingError(
                "bundle: a prior is trained on the codes of a VQ-VAE; name the checkpoint bundle that has it."
            )
        return CheckpointBundle.open(self.bundle)

    def model(self, fine_tuned: CheckpointBundle | None) -> JukeboxConfig:
        """Return the model to train: that of the bundle to fine-tune, else the preset.

        Raises `TrainingError` if neither is given.
        """
        if fine_tuned is not None:
            return fine_tuned.config
        if self.preset is None:
            raise TrainingError("name the model to train: a preset, or a bundle to fine-tune.")
        return preset(self.preset)


@dataclass(frozen=True)
class Songs:
    """The songs of a run, divided into those to train on and those held out."""

    trained: Catalogue
    held_out: Catalogue  # may be empty

    @classmethod
    def read(cls, request: TrainRequest) -> Songs:
        """Read the catalogue of the songs and divide it; raise `DataError` if there are none that can be used."""
        catalogue = read_catalogue(request.data, request.filters, request.metadata)
        if not catalogue.songs:
            count = len(catalogue.skipped)
            raise DataError(f"{request.data}: none of {count} files can be used: {reasons(catalogue.skipped)}.")
        return cls(*catalogue.split(request.settings.train_fraction))

    @property
    def digest(self) -> str:
        """Digest of the songs, see `songs_digest`: first those to train on, then those held out."""
        return songs_digest([*self.trained.songs, *self.held_out.songs])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about files that cannot be used, and about a run without held-out songs."""
        unusable = left_out_warnings(self.trained.skipped, "this run")  # both catalogues list those of the folder
        if self.held_out.songs:
            return unusable
        return (
            *unusable,
            f"no song is held out ({len(self.trained.songs)} in all), so there are no held-out metrics, and reports "
            "are about songs that are trained on. Give more songs or a train fraction below 1.",
        )


class TrainingPart(Protocol):
    """The part of a model that a run trains, with its songs: all that differs between the VQ-VAE and the priors."""

    record: RunRecord
    examples: str  # the unit of `example_length`: "samples" or "codes"
    example_length: int
    warnings: tuple[str, ...]  # sentences for the user, shown before training begins

    def trainer(self) -> Trainer:
        """Return a trainer with newly initialised weights, or with those that fine-tuning begins with."""

    def assess(self, trained: TrainedWeights) -> Mapping[str, float]:
        """Compute the metrics of held-out songs, none if there are no such songs; all processes must call it."""

    def show(self, trained: TrainedWeights, folder: Path) -> None:
        """Write a report, audio and pictures, to a folder. Only the first process calls it, and it may take long."""

    def write_bundle(self, trained: TrainedWeights, out: Path) -> CheckpointBundle:
        """Write a checkpoint bundle; replace the one at `out`, if there is one."""


@dataclass(frozen=True)
class TrainingEvent:
    """The progress of a run, or a warning, for display."""

    action: str  # such as "encoding songs", "training", "assessing", "saving" or "warning"
    step: int  # number of steps done; of the action "encoding songs": of songs
    steps: int  # the total
    numbers: Mapping[str, float] = field(default_factory=dict)  # metrics by name
    warning: str = ""  # a sentence; only of the action "warning"


TrainingListener = Callable[[TrainingEvent], None]
