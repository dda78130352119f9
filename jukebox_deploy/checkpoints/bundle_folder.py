"""The folder of a checkpoint bundle as far as it is read without PyTorch: everything but the values of its weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jukebox_deploy.checkpoints.components import component_configs
from jukebox_deploy.checkpoints.safetensors_header import TensorHeader, check_file, read_header
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.errors import CheckpointError, ConfigError
from jukebox_deploy.files import sha256_of_file
from jukebox_deploy.labels.vocabulary import Vocabulary

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
VOCABULARY_FILE = "vocabulary.json"


@dataclass(frozen=True)
class BundleFolder:
    """A bundle on disk, and what it says about itself."""

    folder: Path
    config: JukeboxConfig
    source: Mapping[str, Any]
    vocabulary: Vocabulary  # empty if none was given

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read configuration and lists of names; check the version, but no weights.

        Raises `CheckpointError`, or `LabelError` for invalid lists of names.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: {'not a' if folder.exists() else 'no such'} folder; give the folder of a checkpoint bundle."
            )
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"{folder}: no checkpoint bundle ({CONFIG_FILE} is missing); make one with `jukebox-deploy import`."
            )
        description = _read_object(folder / CONFIG_FILE)
        config, vocabulary = _read_config(folder, description), _read_vocabulary(folder)
        return cls(folder, config, description.get("source", {}), vocabulary)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components: the VQ-VAE, then the priors, level 0 first."""
        return tuple(component_configs(self.config))

    def weights_file(self, component: str) -> Path:
        """Return the path of a component's safetensors file."""
        return weights_file(self.folder, component)

    def headers(self, component: str) -> dict[str, TensorHeader]:
        """Return what the file of a component says of its tensors. Raises `CheckpointError` for a damaged file."""
        return read_header(self.weights_file(component))

    def fingerprint(self) -> str:
        """Compute the SHA-256 of all files of the bundle, in hexadecimal; the files are read at each call."""
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(f"{path.name} {sha256_of_file(path)}\n".encode())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        optional = self.folder / VOCABULARY_FILE
        weights = [self.weights_file(component) for component in self.components]
        return [self.folder / CONFIG_FILE, *([optional] if optional.exists() else []), *weights]


def weights_file(folder: Path, component: str) -> Path:
    """Return the path of a component's safetensors file in the folder of a bundle."""
    return folder / f"{component}.safetensors"


def _read_config(folder: Path, description: dict[str, Any]) -> JukeboxConfig:
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: a bundle of format {version!r}, but this version reads format {FORMAT_VERSION}; "
            "import the checkpoint again with this version."
        )
    try:
        return config_from_dict(JukeboxConfig, description.get("config"))
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error} Import the checkpoint again.") from error


def _read_vocabulary(folder: Path) -> Vocabulary:
    path = folder / VOCABULARY_FILE
    return Vocabulary.from_json(_read_object(path), str(path)) if path.exists() else Vocabulary()


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file; raise `CheckpointError` if it contains anything else."""
    try:
        data = json.loads(check_file(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}). Import the checkpoint again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(data).__name__}. Import the checkpoint again.")
    return data
