"""The folder of a training run.

- `run.json`: settings, model and data; what a run that goes on must have in common with its beginning
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
    """What a run is made of."""

    settings: RunSettings
    config: JukeboxConfig  # of the bundle that comes out: the VQ-VAE, and the prior that is trained
    songs: int  # that are trained on
    data: str  # digest of their names, sizes and labels
    source: str | None = None  # fingerprint of the bundle that training began from
    bandwidths: Bandwidths | None = None  # constants of the data, for the VQ-VAE
    fine_tuned: bool = False  # whether it began with that bundle's weights of the part

    def difference(self, before: RunRecord, done: int) -> str | None:
        """Why this run cannot go on with what another has left after `done` steps; `None` if it can."""
        if self.config != before.config:
            return f"the model is not the same ({self.config.name}, and was {before.config.name})"
        if self.data != before.data:
            return f"the songs are not the same ({self.songs} of them, and there were {before.songs})"
        if self.source != before.source:
            return "the bundle that training began from is not the same"
        if self.fine_tuned != before.fine_tuned:
            return f"it began with {_beginning(before)} and not with {_beginning(self)}"
        if self.settings.steps < done:
            return f"{done} steps are done, and {self.settings.steps} are asked for"
        return self.settings.difference(before.settings, done)


def _beginning(record: RunRecord) -> str:
    return "the bundle's weights" if record.fine_tuned else "fresh weights"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder on disk."""

    path: Path

    @classmethod
    def begin(cls, path: Path, record: RunRecord, *, resume: bool) -> RunFolder:
        """A folder for a new run, or one that was begun and goes on.

        Raises `TrainingError` if there is a run already and `resume` is false, or it is another one,
        or the folder has other things in it.
        """
        folder = cls(path)
        before = folder._read_record()
        if before is None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise TrainingError(f"{path}: has other things in it and no {_RECORD}; choose a new or empty folder.")
        elif not resume:
            raise TrainingError(f"{path}: a run was begun here; go on with it by --resume, or choose another folder.")
        elif difference := record.difference(before, latest_step(path) or 0):
            raise TrainingError(f"{path}: another run: {difference}. Choose another folder, or the same options.")
        folder._tidy()
        write_json_atomic(path / _RECORD, config_to_dict(record))
        return folder

    def latest(self) -> Snapshot | None:
        """The newest checkpoint; `CheckpointError` if it is damaged."""
        step = latest_step(self.path)
        return None if step is None else read_snapshot(self.path, step)

    @property
    def bundle(self) -> Path:
        """Where the bundle goes."""
        return self.path / "bundle"

    def report(self, step: int) -> Path:
        """The folder for what is looked at and listened to after a step."""
        folder = self.path / "reports" / f"{step:08}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def save(self, snapshot: Snapshot, keep: int) -> None:
        """Write a checkpoint."""
        write_snapshot(self.path, snapshot, keep)

    def open_logs(self, step: int, *, tensorboard: bool) -> tuple[RunLog, RunLog]:
        """The tables of the training and of the held-out songs, as they were after a step."""
        board = open_board(self.path / "tensorboard", step) if tensorboard else None
        logs = RunLog(self.path, "log", board), RunLog(self.path, "held_out", board)
        for log in logs:
            log.cut(step)
        return logs

    def _tidy(self) -> None:
        """Put right what a run that was killed has left half done."""
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
            raise TrainingError(f"{path}: not the record of a run ({error}); choose another folder.") from error


def record_numbers(record: RunRecord) -> dict[str, Any]:
    """The record as plain data, for a bundle's `source`."""
    return {"format": "trained", **asdict(record.settings), "songs": record.songs, "data": record.data}
