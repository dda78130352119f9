"""The checkpoint bundle: a folder with a configuration, weights and lists of names.

- `config.json`: format version, configuration, and where the weights came from
- `vqvae.safetensors`: weights, under this project's names, in their original dtypes
- `prior_LEVEL.safetensors`: the same for each prior that the bundle has
- `vocabulary.json`: names and ids of artists and genres, if they were given

There may be other files, such as recommended sampling settings (`sampling.json`). They are not part of the fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from torch import nn

from jukebox_deploy.checkpoints.bundle_folder import (
    CONFIG_FILE,
    FORMAT_VERSION,
    VOCABULARY_FILE,
    BundleFolder,
    weights_file,
)
from jukebox_deploy.checkpoints.components import (
    VQVAE_COMPONENT,
    ComponentConfig,
    component_configs,
    prior_component,
)
from jukebox_deploy.checkpoints.layout import component_shapes, without_weights
from jukebox_deploy.checkpoints.matching import Mismatch
from jukebox_deploy.checkpoints.reading import SafetensorsFile
from jukebox_deploy.checkpoints.safetensors_writer import write_safetensors
from jukebox_deploy.checkpoints.tensors import TensorSource
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_to_dict
from jukebox_deploy.contract import Precision
from jukebox_deploy.errors import CheckpointError
from jukebox_deploy.files import atomic_directory, write_json_atomic
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.models.builders import build_prior, build_vqvae
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class BundleContents:
    """Everything that a bundle is written from."""

    config: JukeboxConfig
    components: Mapping[str, Callable[[], TensorSource]]
    """Functions that open the tensors of each component, under our names; only one component is open at a time."""
    source: Mapping[str, Any] = field(default_factory=dict)  # plain data about the origin of the weights
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    beside: Mapping[str, Any] = field(default_factory=dict)  # plain data of additional files by file name


def write_bundle(out: Path, contents: BundleContents) -> CheckpointBundle:
    """Write a bundle atomically, tensor by tensor.

    Raises `CheckpointError` for tensors that cannot be read, `LabelError` for lists of names with ids that the model
    lacks, `JukeboxError` if `out` is not empty or there is no disk space.
    """
    for prior in contents.config.priors:
        if prior.labels:
            contents.vocabulary.for_model(prior.labels)
    description = {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(contents.config),
        "source": dict(contents.source),
    }
    with atomic_directory(out) as folder:
        for component, config in component_configs(contents.config).items():
            complaint = f"{out}: the tensors of {component} do not fit its configuration."
            _write_component(weights_file(folder, component), contents.components[component](), config, complaint)
        if contents.vocabulary.lists:
            write_json_atomic(folder / VOCABULARY_FILE, contents.vocabulary.to_json())
        for name, data in contents.beside.items():
            write_json_atomic(folder / name, data)
        write_json_atomic(folder / CONFIG_FILE, description)
    return CheckpointBundle.open(out)


@dataclass(frozen=True)
class CheckpointBundle(BundleFolder):
    """A bundle on disk whose files have been checked to match its configuration."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a bundle; check its version, configuration, and the names and shapes of all tensors.

        No weights are read. Raises `CheckpointError`, or `LabelError` for invalid lists of names.
        """
        bundle = cls.read(folder)
        for component, part in component_configs(bundle.config).items():
            advice = f"does not fit {CONFIG_FILE}; import the checkpoint again."
            _check_tensors(f"{bundle.weights_file(component)}: {advice}", bundle.tensors(component), part)
        return bundle

    def tensors(self, component: str) -> TensorSource:
        """Open the tensors of a component under our names, to be loaded one at a time."""
        return SafetensorsFile(self.weights_file(component))

    def load_vqvae(self) -> VQVAE:
        """Load the VQ-VAE; its weights are memory-mapped from the file, not copied."""
        with without_weights():
            module = build_vqvae(self.config.vqvae)
        return self._filled(module, VQVAE_COMPONENT)

    def load_prior(self, level: int, precision: Precision = Precision.FP32) -> Prior:
        """Load the prior of a level. Weights that are stored in the needed dtype are memory-mapped from the file.

        Raises `ConfigError` if the bundle has no prior for that level.
        """
        config = self.config.prior(level)
        with without_weights():
            module = build_prior(config, precision)
        return self._filled(module, prior_component(level))

    def _filled(self, module: _Module, component: str) -> _Module:
        source = self.tensors(component)
        expected = module.state_dict()
        module.load_state_dict({n: source.load(n).to(t.dtype) for n, t in expected.items()}, assign=True)
        return module


def _write_component(path: Path, source: TensorSource, config: ComponentConfig, complaint: str) -> None:
    """Check and write one component.

    It is a separate function so that no reference to a source remains while the next one is opened.
    """
    _check_tensors(complaint, source, config)
    write_safetensors(path, source)


def _check_tensors(complaint: str, source: TensorSource, config: ComponentConfig) -> None:
    """Compare names and shapes with the configuration; raise a `CheckpointError` that lists the differences."""
    expected = component_shapes(config)
    found = {name: info.shape for name, info in source.infos.items()}
    if mismatch := Mismatch.between(found, {name: (name,) for name in expected}, expected):
        raise CheckpointError(f"{complaint}\n{mismatch}")
