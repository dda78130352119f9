"""Compilation of forward and backward passes with `torch.compile`: the same steps in fewer, larger kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from jukebox_deploy.errors import TrainingError
from jukebox_deploy.models.compilation import explained_compilation, keep_kernels_private
from jukebox_deploy.training.objective import VQVAEObjective


def compile_objective(objective: nn.Module, backend: str = "inductor") -> None:
    """Let an objective be compiled at its first call; it is changed in place, and the names of its tensors stay.

    To be called once, before the objective is wrapped. `backend` is that of `torch.compile`.
    """
    keep_kernels_private()
    # Shapes are constant during a run: they differ between levels, not between batches.
    for part in _parts(objective):
        part.compile(backend=backend, dynamic=False)


def _parts(objective: nn.Module) -> Iterable[nn.Module]:
    """Return the modules to compile.

    Of a VQ-VAE, these are only the encoders and decoders: counting the codes of the codebooks would break the graph.
    """
    if isinstance(objective, VQVAEObjective):
        return (*objective.model.encoders, *objective.model.decoders)
    return (objective,)


@contextmanager
def compiled_passes(device: torch.device) -> Iterator[None]:
    """Prepare for the passes of a compiled module in the block; raise `TrainingError` if it cannot be compiled.

    On a CPU, the gradients of embeddings are summed in a deterministic order: compiled kernels would otherwise add to
    the same row from several threads in any order.
    """
    before, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(before or device.type == "cpu", warn_only=only_warned or not before)
    try:
        with explained_compilation(TrainingError, "train without --compile"):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
