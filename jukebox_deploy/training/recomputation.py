"""Activations computed again in the backward pass instead of kept: less memory for more time."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from jukebox_deploy.models.convolution import ResidualBlock
from jukebox_deploy.models.transformer import Layer


def recompute_activations(module: nn.Module) -> None:
    """Keep only what goes into each layer and each residual block of a module, which is changed in place.

    Gradients stay the same to the bit. To be called once, before the module is wrapped.
    """
    for part in module.modules():
        if isinstance(part, Layer | ResidualBlock):
            # Nothing in them is random, so no state of a generator has to be kept.
            part.forward = partial(checkpoint, part.forward, use_reentrant=False, preserve_rng_state=False)  # type: ignore[method-assign]
