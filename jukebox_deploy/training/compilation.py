"""Forward and backward passes through `torch.compile`: the same steps out of fewer, larger kernels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from jukebox_deploy.errors import TrainingError
from jukebox_deploy.training.objective import VQVAEObjective


def compile_objective(objective: nn.Module, backend: str = "inductor") -> None:
    """Have an objective compiled when it is first called; it is changed in place, and its names stay.

    To be called once, before the objective is wrapped. `backend`: of `torch.compile`.
    """
    # Shapes stay the same over a run, so numbers that change mean another level, not another batch.
    for part in _parts(objective):
        part.compile(backend=backend, dynamic=False)


def _parts(objective: nn.Module) -> Iterable[nn.Module]:
    """What is compiled: all, but of a VQ-VAE not the codebooks, whose random numbers would break it up anyway."""
    if isinstance(objective, VQVAEObjective):
        return (*objective.model.encoders, *objective.model.decoders)
    return (objective,)


@contextmanager
def explained_compilation() -> Iterator[None]:
    """For the block in which a compiled module runs forwards or backwards.

    Raises `TrainingError` where it cannot be compiled: kernels need a C++ compiler (CPU) or Triton (GPU).
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        cause = getattr(error, "inner_exception", error)  # a compiler's own error
        reason, *_ = [*str(cause).strip().splitlines(), type(cause).__name__]
        raise TrainingError(
            f"the model could not be compiled ({reason}). Compiling needs a C++ compiler such as g++ with Python's "
            "headers for a CPU, Triton for a GPU: install it, or train without --compile."
        ) from error
