"""The folder of a training run.

- `run.json`: settings, model and data, which must be the same when the run is resumed
- `checkpoints/STEP/`: the last few training checkpoints
- `log.csv` and `held_out.csv`: numbers by step
- `reports/STEP/`: reconstructions or samples, and their spectrograms
- `bundle/`: the checkpoint bundle, at the end
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.errors import ConfigError, TrainingError
from jukebox_deploy.files import remove_leftovers, restore_directory, write_json_atomic
from jukebox_deploy.models.losses import Bandwidths
from jukebox_deploy.training.checkpoint import Snapshot, checkpoints_folder, latest_step, read_snapshot, write_snapshot
from jukebox_deploy.training.logs import RunLog, open_board
from jukebox_deploy.training.settings import RunSettings

_RECORD = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """Contents of `run.json`: everything that a run depends on."""

    settings: RunSettings
    config: JukeboxConfig  # of the resulting bundle: the VQ-VAE, and the prior that is trained
    songs: int  # number of songs to train on
    data: str  # digest of their names, sizes and labels
    source: str | None = None  # fingerprint of the bundle that training began from
    bandwidths: Bandwidths | None = None  # constants of the data, for the VQ-VAE
    fine_tuned: bool = False  # whether training began with that bundle's weights of the trained part
    vocabulary: str | None = None  # digest of a prior's lists of artists and genres; older runs did not record it

    def difference(self, before: RunRecord, done: int) -> str | None:
        """Return why this run cannot resume the run `before`, of which `done` steps are done; `None` if it can."""
        if self.config != before.config:
            return f"the model is not the same ({self.config.name}, and was {before.config.name})"
        if self.data != before.data:
            return f"the songs are not the same ({self.songs} of them, and there were {before.songs})"
        if self.source != before.source:
            return "the bundle that training began from is not the same"
        if before.vocabulary is not None and self.vocabulary != before.vocabulary:
            return "the lists of artists and genres are not the same"
        if self.fine_tuned != before.fine_tuned:
            return f"it began with {_beginning(before)} and not with {_beginning(self)}"
        if self.settings.steps < done:
            return f"{done} steps are already done, but only {self.settings.steps} are requested"
        return self.settings.difference(before.settings, done)


def _beginning(record: RunRecord) -> str:
    return "the bundle's weights" if record.fine_tuned else "fresh weights"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run."""

    path: Path

    @classmethod
    def begin(cls, path: Path, record: RunRecord, *, resume: bool) -> RunFolder:
        """Prepare the folder of a new run, or of a run to resume.

        Raises `TrainingError` as `existing_run` does, and if the run to resume has other settings.
        """
        folder = cls(path)
        before = folder.existing_run(resume=resume)
        if before and (difference := record.difference(before, latest_step(path) or 0)):
            raise TrainingError(
                f"{path}: contains another run: {difference}. Use the same options, or choose another folder."
            )
        folder._tidy()
        write_json_atomic(path / _RECORD, config_to_dict(record))
        return folder

    def existing_run(self, *, resume: bool) -> RunRecord | None:
        """Return the record of the run to resume; `None` if the folder is new or empty.

        Raises `TrainingError` if the folder has a run and `resume` is false, or if it contains other files.
        """
        before = self._read_record()
        if before is not None and not resume:
            raise TrainingError(
                f"{self.path}: contains a run already; continue it with --resume, or choose another folder."
            )
        if before is None and self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise TrainingError(f"{self.path}: has other things in it and no {_RECORD}; choose a new or empty folder.")
        return before

    def latest(self) -> Snapshot | None:
        """Read the newest checkpoint, if there is one; raise `CheckpointError` if it is damaged."""
        step = latest_step(self.path)
        return None if step is None else read_snapshot(self.path, step)

    @property
    def bundle(self) -> Path:
        """Folder of the resulting checkpoint bundle."""
        return self.path / "bundle"

    def report(self, step: int) -> Path:
        """Create the folder for the samples and pictures of a step, and return it."""
        folder = self.path / "reports" / f"{step:08}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, snapshot: Snapshot, keep: int) -> None:
        """Write a checkpoint."""
        write_snapshot(self.path, snapshot, keep)

    def open_logs(self, step: int, *, tensorboard: bool) -> tuple[RunLog, RunLog]:
        """Open the logs of the training and of the held-out songs, without the rows after a step."""
        board = open_board(self.path / "tensorboard", step) if tensorboard else None
        logs = RunLog(self.path, "log", board), RunLog(self.path, "held_out", board)
        for log in logs:
            log.cut(step)
        return logs

    def _tidy(self) -> None:
        """Restore or remove what a killed run left unfinished."""
        restore_directory(self.bundle)
        for folder in (self.path, checkpoints_folder(self.path)):
            remove_leftovers(folder)

    def _read_record(self) -> RunRecord | None:
        path = self.path / _RECORD
        if not path.is_file():
            return None
        try:
            return config_from_dict(RunRecord, json.loads(path.read_text(encoding="utf-8")), _RECORD)
        except (ValueError, ConfigError) as error:
            raise TrainingError(
                f"{path}: not the record of a training run ({error}); choose another folder."
            ) from error


def record_numbers(record: RunRecord) -> dict[str, Any]:
    """Convert a record to plain data for a bundle's `source`."""
    return {"format": "trained", **asdict(record.settings), "songs": record.songs, "data": record.data}
