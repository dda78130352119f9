"""Forward and backward passes through `torch.compile`: the same steps out of fewer, larger kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from jukebox_deploy.errors import TrainingError
from jukebox_deploy.models.compilation import explained_compilation, keep_kernels_private
from jukebox_deploy.training.objective import VQVAEObjective


def compile_objective(objective: nn.Module, backend: str = "inductor") -> None:
    """Have an objective compiled when it is first called; it is changed in place, and its names stay.

    To be called once, before the objective is wrapped. `backend`: of `torch.compile`.
    """
    keep_kernels_private()
    # Shapes stay the same over a run, so numbers that change mean another level, not another batch.
    for part in _parts(objective):
        part.compile(backend=backend, dynamic=False)


def _parts(objective: nn.Module) -> Iterable[nn.Module]:
    """What is compiled: all, but of a VQ-VAE not the codebooks, whose random numbers would break it up anyway."""
    if isinstance(objective, VQVAEObjective):
        return (*objective.model.encoders, *objective.model.decoders)
    return (objective,)


@contextmanager
def compiled_passes(device: torch.device) -> Iterator[None]:
    """For the block in which a compiled module runs forwards or backwards; raises `TrainingError` where that cannot be.

    On a CPU the gradients of embeddings are then summed in one order: compiled kernels would otherwise add to a row
    from several threads, in whatever order these come.
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
