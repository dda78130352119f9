"""Checkpoints of any size with seeded random weights, for demonstrations and measurements."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from jukebox_deploy.checkpoints.bundle import BundleContents, CheckpointBundle, write_bundle
from jukebox_deploy.checkpoints.components import ComponentConfig, component_configs
from jukebox_deploy.checkpoints.exporting import export_openai
from jukebox_deploy.checkpoints.layout import component_shapes
from jukebox_deploy.checkpoints.matching import resolve
from jukebox_deploy.checkpoints.tensors import TensorInfo
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_to_dict
from jukebox_deploy.files import scratch_folder
from jukebox_deploy.labels.vocabulary import Vocabulary


@dataclass(frozen=True)
class RandomTensors:
    """Random weights of a component, generated on demand.

    A tensor depends only on the seed, the component's name, its own name and its shape.
    """

    component: str
    config: ComponentConfig
    seed: int

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by our name."""
        return {name: TensorInfo(shape, torch.float32) for name, shape in component_shapes(self.config).items()}

    def load(self, name: str) -> Tensor:
        """Generate one tensor: ones for weights of norms, zeros for biases, normally distributed for the rest."""
        shape = component_shapes(self.config)[name]
        if name.endswith("bias"):
            return torch.zeros(shape)
        if "norm." in name:
            return torch.ones(shape)
        digest = hashlib.sha256(f"{self.seed}/{self.component}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return torch.randn(shape, generator=generator).mul_(_spread(name, shape))


def _spread(name: str, shape: tuple[int, ...]) -> float:
    """Return the standard deviation of a tensor that keeps the size of signals from layer to layer."""
    if name.startswith("codebooks."):
        return 1.0
    if name.startswith("decoders.") and name.count(".") == 3:  # the last convolution: keeps audio well within [-1, 1]
        return 0.1 / math.sqrt(shape[1] * shape[2])
    if len(shape) == 3:  # convolutions: (out, in, kernel), or (in, out, kernel) with a stride of kernel / 2
        transposed = name.startswith(("decoders.", "conditioner.")) and ".convolution." in name
        inputs = 2 * shape[0] if transposed else shape[1] * shape[2]
        return _gain(name) / math.sqrt(inputs)
    if name.startswith("labels.") or "embedding" in name:
        return math.sqrt(5 / shape[-1])  # with a tied output, codes tend to repeat, and labels have an effect
    return 0.02


def _gain(name: str) -> float:
    """Return the factor by which a convolution scales a signal."""
    if ".outer." in name:
        return 0.25  # the end of a residual branch, of which many add up
    if name.startswith("encoders.") and ".blocks.0.stages.0.convolution." in name:
        return 8.0  # audio is quieter than codebook vectors, and different sounds should get different codes
    return 1.0


class RandomCheckpoint(CheckpointBundle):
    """A checkpoint whose tensors are generated on demand; it has no files on disk."""

    seed = 0

    @classmethod
    def of(cls, config: JukeboxConfig) -> Self:
        """Return the checkpoint with random weights for a configuration."""
        return cls(
            Path(f"random weights of {config.name}"), config, {"format": "random", "seed": cls.seed}, Vocabulary()
        )

    def tensors(self, component: str) -> RandomTensors:
        """Return the tensors of a component, the same as `write_random_bundle` writes."""
        return RandomTensors(component, component_configs(self.config)[component], self.seed)

    def fingerprint(self) -> str:
        """Return a hash of the configuration and the seed, which determine the tensors."""
        made_of = {"config": config_to_dict(self.config), **self.source}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def write_random_bundle(config: str | JukeboxConfig, out: Path, seed: int = 0) -> CheckpointBundle:
    """Write a checkpoint bundle of random weights for a preset or configuration.

    Raises `ConfigError` for an unknown preset, `JukeboxError` if `out` is not empty or there is no disk space.
    """
    config = resolve(config)
    components = {name: partial(RandomTensors, name, part, seed) for name, part in component_configs(config).items()}
    return write_bundle(out, BundleContents(config, components, source={"format": "random", "seed": seed}))


def write_random_openai_checkpoint(config: str | JukeboxConfig, out: Path, seed: int = 0) -> list[Path]:
    """Write the same weights as `.pth.tar` files in OpenAI's layout; return the files.

    Temporarily needs disk space for two copies. Raises the same errors as `write_random_bundle`.
    """
    with scratch_folder(out) as scratch:
        bundle = write_random_bundle(config, scratch / "bundle", seed)
        return export_openai(bundle, out)
