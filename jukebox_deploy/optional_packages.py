"""Packages that only some commands need, and the extras that install them.

Modules import these packages as any other, most of them at their top. Whoever runs a command or calls into the library
does so in `packages_explained`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jukebox_deploy.errors import MissingPackageError

OPTIONAL_PACKAGES = {
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "polygraphy": "export",
    "scipy": "synthesis",
    "tensorboard": "train",
}
"""The extra that installs each optional package, by the name that is imported."""

_PYTORCH_FIRST = "; without an NVIDIA GPU, first python tools/install_torch.py, for the small CPU build of PyTorch"
"""On Linux, pip alone takes PyTorch's build for CUDA, which is gigabytes."""


@contextmanager
def packages_explained() -> Iterator[None]:
    """Raise `MissingPackageError` where the block imports an optional package that is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL_PACKAGES:
            raise
        raise MissingPackageError(
            f"this needs the package {error.name.replace('_', '-')}, which is not installed. In a clone of the "
            f"repository: pip install '.[{OPTIONAL_PACKAGES[error.name]}]'"
            f"{_PYTORCH_FIRST if error.name == 'torch' else ''}.",
            name=error.name,
        ) from error
