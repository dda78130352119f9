"""Import of the checkpoint files that OpenAI published, or that its training code wrote.

Source: specification section 15.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT, component_configs, prior_component
from jukebox_deploy.checkpoints.layout import FileLayout, Shapes
from jukebox_deploy.checkpoints.matching import (
    explain_mismatch,
    explain_unknown,
    fitting_components,
    layouts,
    one_system,
    resolve,
    restrict,
)
from jukebox_deploy.checkpoints.names import OPENAI
from jukebox_deploy.checkpoints.reading import read_torch_file, state_tensors
from jukebox_deploy.checkpoints.tensors import RenamedTensors, TensorTable
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import sha256_of_file
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.listing import listed
from jukebox_deploy.presets import PRESETS

_PUBLISHED_NAME = re.compile(r"prior_level_(\d+)")
# Conditioners trained without recomputation call their residual blocks `model` (specification 15.3).
_CONDITIONER_BLOCKS = re.compile(r"^(conditioner_blocks\.0\.cond\.model\.\d+\.0\.)model\.")


@dataclass(frozen=True)
class _Scan:
    """Contents of a file without the values."""

    path: Path
    shapes: Shapes
    level: int | None  # from the file's name or settings; only needed if the shapes are ambiguous


def import_openai(
    files: Sequence[Path],
    preset: str | JukeboxConfig | None,
    out: Path,
    vocabulary: Vocabulary | None = None,
) -> CheckpointBundle:
    """Import `vqvae.pth.tar` and any number of `prior_level_N.pth.tar` as a checkpoint bundle.

    The files are identified by their tensors. The two upsamplers of the released sets have the same shapes; they are
    told apart by the published file name, or else by the level recorded in the file.

    Args:
        files: the VQ-VAE and some or all priors, in any order.
        preset: name of a preset, or a configuration; `None` finds the preset that matches.
        out: the bundle's folder; must be new or empty.
        vocabulary: names of artists and genres, to be included in the bundle.

    Raises:
        CheckpointError: if files cannot be read, or do not match the preset.
        ConfigError: if there is no preset of that name.
        LabelError: if the vocabulary is of another model.
        JukeboxError: if `out` is not empty, or there is no disk space.
    """
    scans = [_scan(Path(path)) for path in files]
    config = _recognise(scans) if preset is None else resolve(preset)
    assigned = _assign(scans, config)
    config = restrict(config, assigned)
    expected = layouts(config, OPENAI)
    return write_bundle(
        out,
        BundleContents(
            config,
            components={name: partial(_open, path, expected[name]) for name, path in assigned.items()},
            source={"format": "openai", "files": [_record(name, path) for name, path in assigned.items()]},
            vocabulary=vocabulary or Vocabulary(),
        ),
    )


def _read(path: Path, *, values: bool) -> tuple[dict[str, Tensor], Any]:
    """Read the tensors of a file, with variants of OpenAI's names unified, and its settings."""
    data = read_torch_file(path, values=values)
    if not isinstance(data, dict) or "model" not in data:
        found = (
            f"a dictionary with {listed(sorted(map(str, data)), 8) or 'nothing in it'}"
            if isinstance(data, dict)
            else type(data).__name__
        )
        raise CheckpointError(
            f"{path}: not an OpenAI checkpoint: expected a dictionary with 'model', found {found}. "
            "For a Hugging Face checkpoint use `import hf`."
        )
    tensors = state_tensors(path, data["model"])
    return {_plain_name(name): tensor for name, tensor in tensors.items()}, data.get("hps")


def _plain_name(name: str) -> str:
    return _CONDITIONER_BLOCKS.sub(r"\1blocks.", name.removeprefix("module."))


def _scan(path: Path) -> _Scan:
    tensors, settings = _read(path, values=False)
    level = settings.get("level") if isinstance(settings, dict) else None
    if published := _PUBLISHED_NAME.search(path.name):
        level = int(published[1])
    return _Scan(path, {name: tuple(t.shape) for name, t in tensors.items()}, level if type(level) is int else None)


def _open(path: Path, layout: FileLayout) -> RenamedTensors:
    tensors, _ = _read(path, values=True)
    return RenamedTensors(TensorTable(tensors), layout.names)


def _recognise(scans: Sequence[_Scan]) -> JukeboxConfig:
    """Return the preset that all files belong to."""
    candidates = {
        name: restrict(config, _assign(scans, config))
        for name, config in PRESETS.items()
        if all(fitting_components(scan.shapes, config, OPENAI) for scan in scans)
    }
    if not candidates:
        raise CheckpointError(explain_unknown({str(scan.path): scan.shapes for scan in scans}, OPENAI))
    return PRESETS[one_system(candidates, ", ".join(str(scan.path) for scan in scans))]


def _assign(scans: Sequence[_Scan], config: JukeboxConfig) -> dict[str, Path]:
    """Return the file of each component; raise one `CheckpointError` with the problems of all files."""
    problems = []
    assigned: dict[str, Path] = {}
    for scan in scans:
        fitting = fitting_components(scan.shapes, config, OPENAI)
        component = _choose(fitting, scan.level)
        if not fitting:
            problems.append(explain_mismatch(str(scan.path), scan.shapes, config, OPENAI, _meant(scan, config)))
        elif component is None:
            problems.append(
                f"{scan.path}: could be {' or '.join(fitting)}; name it as it was published, prior_level_N.pth.tar."
            )
        elif component in assigned:
            problems.append(f"{scan.path}: is {component}, and so is {assigned[component]}; leave one out.")
        else:
            assigned[component] = scan.path
    if not problems and VQVAE_COMPONENT not in assigned:
        problems.append("None of these files is the VQ-VAE (vqvae.pth.tar); every bundle needs it.")
    if problems:
        raise CheckpointError("\n".join(problems))
    return assigned


def _meant(scan: _Scan, config: JukeboxConfig) -> str | None:
    """Return the prior that a file is according to its name or settings, for files whose tensors do not match."""
    if scan.level is None or any(name.startswith("bottleneck.") for name in scan.shapes):
        return None
    component = prior_component(scan.level)
    return component if component in component_configs(config) else None


def _choose(fitting: Sequence[str], level: int | None) -> str | None:
    if len(fitting) == 1:
        return fitting[0]
    return prior_component(level) if level is not None and prior_component(level) in fitting else None


def _record(component: str, path: Path) -> dict[str, Any]:
    return {"component": component, "name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
