"""Compilation of functions of tensors with `torch.compile`: the same arithmetic in fewer, larger kernels."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jukebox_deploy.errors import JukeboxError

_KERNEL_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
_TOOLS = "Compiling for a CPU needs a C++ compiler such as g++ and Python's headers, for a GPU it needs Triton"

_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "deterministic": True,  # no autotuning among kernels that would round sums differently
}


def compile_for_inference(
    function: Callable[..., tuple[Tensor, ...]], name: str, backend: str = "inductor"
) -> Callable[..., tuple[Tensor, ...]]:
    """Compile a function of tensors as a whole, at the first call with each set of shapes.

    `backend` is that of `torch.compile`. PyTorch caches the kernels on disk, so that later processes compile faster.
    """
    keep_kernels_private()

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    # PyTorch caches compiled versions per code object: at most eight, for as long as the code object lives. So every
    # function gets a code object of its own.
    call.__code__ = call.__code__.replace(co_name=name)
    options = _OPTIONS if backend == "inductor" else None
    return torch.compile(call, fullgraph=True, dynamic=False, backend=backend, options=options)


def keep_kernels_private() -> None:
    """Let PyTorch cache compiled code in a folder of the user, unless `TORCHINDUCTOR_CACHE_DIR` names another.

    By default, PyTorch uses a folder with a predictable name in the system's temporary folder and loads code from it,
    so another user could place code there. PyTorch writes this default into the variable as well; it is replaced.
    """
    named = os.environ.get(_KERNEL_FOLDER)
    if named and not _is_pytorchs_choice(Path(named)):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jukebox-deploy" / "torch-compile"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError):  # there is no home folder, or it is not writable
        writable = False
    os.environ[_KERNEL_FOLDER] = str(folder) if writable else tempfile.mkdtemp(prefix="jukebox-deploy-")


def _is_pytorchs_choice(folder: Path) -> bool:
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")


def require_compilation(device: str, error: type[JukeboxError], otherwise: str) -> None:
    """Raise an `error` unless a small function can be compiled for a device and run; takes seconds the first time."""
    with explained_compilation(error, otherwise), torch.inference_mode():
        compiled = compile_for_inference(lambda x: (2 * x,), "require_compilation")
        compiled(torch.zeros(1, device=device))


@contextmanager
def explained_compilation(error: type[JukeboxError], otherwise: str) -> Iterator[None]:
    """Turn failures to compile in the block into an `error` that says what is needed and what to do `otherwise`.

    Running out of memory raises `torch.OutOfMemoryError`, as it would without compiling.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")  # fp32 products are not rounded
            yield
    except OSError as failure:
        raise error(
            f"compiled kernels could not be kept ({failure}). Name a folder for them in {_KERNEL_FOLDER}, "
            f"or {otherwise}."
        ) from failure
    except RuntimeError as failure:
        from torch._dynamo.exc import TorchDynamoException  # a late import, because it creates the folder for kernels

        if not isinstance(failure, TorchDynamoException):
            raise
        cause = getattr(failure, "inner_exception", failure)  # the error of the compiler itself
        if isinstance(cause, torch.OutOfMemoryError):
            raise cause from failure
        reason, *_ = [*str(cause).strip().splitlines(), type(cause).__name__]
        raise error(f"the model could not be compiled ({reason}). {_TOOLS}: install it, or {otherwise}.") from failure
