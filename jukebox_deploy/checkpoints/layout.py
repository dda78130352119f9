"""Names and shapes of the tensors of a VQ-VAE or a prior, without any weights.

They are taken from the modules themselves, built on torch's "meta" device, where tensors use no memory.
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

from jukebox_deploy.checkpoints.components import ComponentConfig
from jukebox_deploy.checkpoints.names import Dialect, file_names
from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.models.builders import build_prior, build_vqvae

Shapes = Mapping[str, tuple[int, ...]]


def build_component(config: ComponentConfig) -> nn.Module:
    """Build the module of a component on the current default device."""
    return build_vqvae(config) if isinstance(config, VQVAEConfig) else build_prior(config)


class _SkipInitialisation(TorchFunctionMode):
    """Mode in which `torch.nn.init` does nothing: initialisation takes long even on the meta device."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build modules in the block with names and shapes only; `load_state_dict(assign=True)` gives them weights."""
    with torch.device("meta"), _SkipInitialisation():
        yield


@cache
def component_shapes(config: ComponentConfig) -> Shapes:
    """Return our names and the shapes of a component's tensors, codebooks included."""
    with without_weights():
        module = build_component(config)
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})


@dataclass(frozen=True)
class FileLayout:
    """The tensors of a component in a publisher's file."""

    names: Mapping[str, tuple[str, ...]]  # our name -> the publisher's; two for the embedding of a tied prior
    shapes: Shapes  # by the publisher's names


@cache
def file_layout(dialect: Dialect, config: ComponentConfig) -> FileLayout:
    """Return the tensors that a file of this publisher must contain for a component."""
    ours = component_shapes(config)
    names = file_names(dialect, config, ours)
    shapes = {theirs: ours[name] for name, aliases in names.items() for theirs in aliases}
    return FileLayout(MappingProxyType(names), MappingProxyType(shapes))
