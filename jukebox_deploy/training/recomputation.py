"""Recomputation of activations in the backward pass (gradient checkpointing), which saves memory but takes time."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from jukebox_deploy.models.convolution import ResidualBlock
from jukebox_deploy.models.transformer import Layer


def recompute_activations(module: nn.Module) -> None:
    """Keep only the inputs of each layer and residual block for the backward pass; change the module in place.

    Gradients stay bit-identical. To be called once, before the module is wrapped.
    """
    for part in module.modules():
        if isinstance(part, Layer | ResidualBlock):
            # Nothing in them is random, so the state of the random generator does not have to be kept.
            part.forward = partial(checkpoint, part.forward, use_reentrant=False, preserve_rng_state=False)  # type: ignore[method-assign]
