"""Checkpoints with seeded random weights, of any size, for demonstrations and measurements."""

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
from jukebox_deploy.checkpoints.exporting import export_openai
from jukebox_deploy.checkpoints.layout import ComponentConfig, component_configs, component_shapes
from jukebox_deploy.checkpoints.matching import resolve
from jukebox_deploy.checkpoints.tensors import TensorInfo
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_to_dict
from jukebox_deploy.files import scratch_folder
from jukebox_deploy.labels.vocabulary import Vocabulary


@dataclass(frozen=True)
class RandomTensors:
    """Random weights of a component, made when they are asked for.

    A tensor depends on the seed, the component's name and its own name, on nothing else.
    """

    component: str
    config: ComponentConfig
    seed: int

    @cached_property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor, by our name."""
        return {name: TensorInfo(shape, torch.float32) for name, shape in component_shapes(self.config).items()}

    def load(self, name: str) -> Tensor:
        """One tensor: norms at rest, biases zero, everything else normal."""
        shape = component_shapes(self.config)[name]
        if name.endswith("bias"):
            return torch.zeros(shape)
        if "norm." in name:
            return torch.ones(shape)
        digest = hashlib.sha256(f"{self.seed}/{self.component}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return torch.randn(shape, generator=generator).mul_(_spread(name, shape))


def _spread(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation of a tensor, such that signals keep their size from layer to layer."""
    if name.startswith("codebooks."):
        return 1.0
    if name.startswith("decoders.") and name.count(".") == 3:  # the last convolution: audio well within [-1, 1]
        return 0.1 / math.sqrt(shape[1] * shape[2])
    if len(shape) == 3:  # convolutions: (out, in, kernel), or (in, out, kernel) with a stride of kernel / 2
        transposed = name.startswith(("decoders.", "conditioner.")) and ".convolution." in name
        inputs = 2 * shape[0] if transposed else shape[1] * shape[2]
        return _gain(name) / math.sqrt(inputs)
    if name.startswith("labels.") or "embedding" in name:
        return math.sqrt(5 / shape[-1])  # with tied output, codes tend to be held, and labels matter
    return 0.02


def _gain(name: str) -> float:
    """How much larger a convolution leaves a signal."""
    if ".outer." in name:
        return 0.25  # the end of a residual branch: many of them add up
    if name.startswith("encoders.") and ".blocks.0.stages.0.convolution." in name:
        return 8.0  # sound is quieter than codes, and each sound shall have codes of its own
    return 1.0


class RandomCheckpoint(CheckpointBundle):
    """A checkpoint whose tensors are made when they are asked for: nothing of it is on a disk."""

    seed = 0

    @classmethod
    def of(cls, config: JukeboxConfig) -> Self:
        """The random weights of a configuration."""
        return cls(
            Path(f"random weights of {config.name}"), config, {"format": "random", "seed": cls.seed}, Vocabulary()
        )

    def tensors(self, component: str) -> RandomTensors:
        """The tensors of a component, as `write_random_bundle` writes them."""
        return RandomTensors(component, component_configs(self.config)[component], self.seed)

    def fingerprint(self) -> str:
        """A hash of what the tensors follow from."""
        made_of = {"config": config_to_dict(self.config), **self.source}
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def write_random_bundle(config: str | JukeboxConfig, out: Path, seed: int = 0) -> CheckpointBundle:
    """Write a checkpoint bundle of random weights for a preset or configuration.

    Raises `ConfigError` for an unknown preset, `JukeboxError` if `out` is taken or there is no room.
    """
    config = resolve(config)
    components = {name: partial(RandomTensors, name, part, seed) for name, part in component_configs(config).items()}
    return write_bundle(out, BundleContents(config, components, source={"format": "random", "seed": seed}))


def write_random_openai_checkpoint(config: str | JukeboxConfig, out: Path, seed: int = 0) -> list[Path]:
    """Write the same weights as `.pth.tar` files in OpenAI's layout; returns the files.

    Needs room for two copies while it works. Raises as `write_random_bundle`.
    """
    with scratch_folder(out) as scratch:
        bundle = write_random_bundle(config, scratch / "bundle", seed)
        return export_openai(bundle, out)
