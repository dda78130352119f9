"""Training checkpoints: everything that a run needs to resume exactly where it was interrupted.

A checkpoint is a folder with plain numbers as JSON and tensors as safetensors, so nothing is unpickled. It is written
atomically, and older checkpoints are removed only afterwards.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import atomic_directory, write_json_atomic

FORMAT_VERSION = 1
_NUMBERS = "training.json"
_FOLDER = "checkpoints"


@dataclass(frozen=True)
class Snapshot:
    """State of a run after a number of steps."""

    step: int
    numbers: Mapping[str, Any]  # plain JSON data
    tensors: Mapping[str, Mapping[str, Tensor]]  # by group: weights, moments, average, state


def write_snapshot(run: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint in a run's folder and remove all but the last `keep`; return the checkpoint's folder.

    Raises `JukeboxError` if there is no disk space; existing checkpoints then stay.
    """
    from safetensors.torch import save_file

    path = _path(run, snapshot.step)
    if path.exists():
        return path
    with atomic_directory(path) as folder:
        for group, tensors in snapshot.tensors.items():
            save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, folder / f"{group}.safetensors")
        numbers = {
            "format_version": FORMAT_VERSION,
            "step": snapshot.step,
            "groups": sorted(snapshot.tensors),
            **snapshot.numbers,
        }
        write_json_atomic(folder / _NUMBERS, numbers)
    for old in _paths(run)[:-keep]:
        shutil.rmtree(old)
    return path


def latest_step(run: Path) -> int | None:
    """Return the step of the newest checkpoint; `None` if there is none."""
    paths = _paths(run)
    return int(paths[-1].name) if paths else None


def read_snapshot(run: Path, step: int) -> Snapshot:
    """Read a checkpoint; raise `CheckpointError` if it is missing, damaged or of another format version."""
    path = _path(run, step)
    advice = f"Remove {path} to resume from the checkpoint before it."
    try:
        numbers = json.loads((path / _NUMBERS).read_text(encoding="utf-8"))
        version, groups = numbers.pop("format_version"), numbers.pop("groups")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path / _NUMBERS}: not a training checkpoint ({error!r}). {advice}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path}: has format {version!r}, but this version reads {FORMAT_VERSION}. {advice}")
    tensors = {group: _read_tensors(path / f"{group}.safetensors", advice) for group in groups}
    return Snapshot(int(numbers.pop("step")), numbers, tensors)


def _read_tensors(path: Path, advice: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). {advice}") from error


def checkpoints_folder(run: Path) -> Path:
    """Return the folder of a run's checkpoints."""
    return run / _FOLDER


def _path(run: Path, step: int) -> Path:
    return checkpoints_folder(run) / f"{step:08}"


def _paths(run: Path) -> list[Path]:
    """Return the folders of all checkpoints, oldest first; the names of unfinished ones do not match."""
    return sorted(path for path in checkpoints_folder(run).glob("[0-9]*") if path.name.isdigit() and path.is_dir())
