"""Functions of tensors through `torch.compile`: the same arithmetic out of fewer, larger kernels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jukebox_deploy.errors import JukeboxError

_KERNEL_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_TOOLS = "Compiling needs a C++ compiler such as g++ with Python's headers for a CPU, Triton for a GPU"

_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "deterministic": True,  # no kernel is chosen by a race where that would change how sums are rounded
}


def compile_for_inference(
    function: Callable[..., tuple[Tensor, ...]], name: str, backend: str = "inductor"
) -> Callable[..., tuple[Tensor, ...]]:
    """A function of tensors, compiled as a whole at the first call with their shapes. `backend`: of `torch.compile`.

    PyTorch keeps the kernels on disk, so that the next process has them sooner.
    """
    keep_kernels_private()

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    # What was compiled is kept with the code that it was made of, eight versions at most and as long as that code:
    # so every function gets code of its own.
    call.__code__ = call.__code__.replace(co_name=name)
    options = _OPTIONS if backend == "inductor" else None
    return torch.compile(call, fullgraph=True, dynamic=False, backend=backend, options=options)


def keep_kernels_private() -> None:
    """Have compiled code kept in a folder of the user's, unless `TORCHINDUCTOR_CACHE_DIR` says where.

    PyTorch alone takes one in the system's folder for temporary files, whose name anybody could take before, and loads
    what lies there. It writes its choice into that variable, too.
    """
    named = os.environ.get(_KERNEL_FOLDER)
    if named and not _is_pytorchs_choice(Path(named)):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jukebox-deploy" / "torch-compile"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # no home, or none that can be written to
        writable = False
    os.environ[_KERNEL_FOLDER] = str(folder) if writable else tempfile.mkdtemp(prefix="jukebox-deploy-")


def _is_pytorchs_choice(folder: Path) -> bool:
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")


def require_compilation(device: str, error: type[JukeboxError], otherwise: str) -> None:
    """Raise an `error` unless something small can be compiled for a device and run there; it takes seconds, once."""
    with explained_compilation(error, otherwise), torch.inference_mode():
        compiled = compile_for_inference(lambda x: (2 * x,), "require_compilation")
        compiled(torch.zeros(1, device=device))


@contextmanager
def explained_compilation(error: type[JukeboxError], otherwise: str) -> Iterator[None]:
    """Raises an `error` where something cannot be compiled, with what is needed and what to do `otherwise`.

    What runs out of memory meanwhile raises `torch.OutOfMemoryError`, as it would have without compiling.
    """
    try:
        yield
    except OSError as failure:
        raise error(
            f"compiled kernels could not be kept ({failure}). Name a folder for them in {_KERNEL_FOLDER}, "
            f"or {otherwise}."
        ) from failure
    except RuntimeError as failure:
        from torch._dynamo.exc import TorchDynamoException  # not before: importing it makes the folder for kernels

        if not isinstance(failure, TorchDynamoException):
            raise
        cause = getattr(failure, "inner_exception", failure)  # a compiler's own error
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from failure
        reason, *_ = [*str(cause).strip().splitlines(), type(cause).__name__]
        raise error(f"the model could not be compiled ({reason}). {_TOOLS}: install it, or {otherwise}.") from failure
