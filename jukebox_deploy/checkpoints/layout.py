"""The tensors that a VQ-VAE or a prior consists of: names and shapes, without any weights.

Taken from the modules themselves, built on torch's "meta" device, where tensors have no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from jukebox_deploy.checkpoints.names import Dialect, file_names
from jukebox_deploy.config import JukeboxConfig, PriorConfig, VQVAEConfig
from jukebox_deploy.models.builders import build_prior, build_vqvae

ComponentConfig = VQVAEConfig | PriorConfig
Shapes = Mapping[str, tuple[int, ...]]

VQVAE_COMPONENT = "vqvae"


def prior_component(level: int) -> str:
    """The name of a level's prior as a component; also the stem of its file."""
    return f"prior_{level}"


def component_configs(config: JukeboxConfig) -> dict[str, ComponentConfig]:
    """The components of a system by name: the VQ-VAE, then the priors, level 0 first."""
    priors = {prior_component(prior.level): prior for prior in config.priors}
    return {VQVAE_COMPONENT: config.vqvae, **priors}


def build_component(config: ComponentConfig) -> nn.Module:
    """The module of a component, on the current default device."""
    return build_vqvae(config) if isinstance(config, VQVAEConfig) else build_prior(config)


class _SkipInitialisation(TorchFunctionMode):
    """Leaves out the filling of new weights, which takes long even where they have no memory."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules built inside have names and shapes only, until `load_state_dict(assign=True)`."""
    with torch.device("meta"), _SkipInitialisation():
        yield


@cache
def component_shapes(config: ComponentConfig) -> Shapes:
    """Our names and shapes of a component's tensors, codebooks included."""
    with without_weights():
        module = build_component(config)
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})


@dataclass(frozen=True)
class FileLayout:
    """The tensors of a component as a publisher's file names them."""

    names: Mapping[str, tuple[str, ...]]  # ours -> theirs; two for the embedding of a tied prior
    shapes: Shapes  # by their names


@cache
def file_layout(dialect: Dialect, config: ComponentConfig) -> FileLayout:
    """What a file of this publisher must hold for this component."""
    ours = component_shapes(config)
    names = file_names(dialect, config, ours)
    shapes = {theirs: ours[name] for name, aliases in names.items() for theirs in aliases}
    return FileLayout(MappingProxyType(names), MappingProxyType(shapes))
