"""Import of the `onnxruntime` package, with checks of its installation."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from jukebox_deploy.errors import EngineError


def import_onnxruntime() -> Any:
    """Import the `onnxruntime` module.

    Raises `EngineError` if it is missing or damaged, or if both of its wheels are installed in the same folder.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EngineError(
            "ONNX Runtime is not installed. Install it with: pip install onnxruntime "
            "(for NVIDIA GPUs: 'onnxruntime-gpu[cuda,cudnn]' cuda-bindings)."
        ) from None
    except ImportError as error:
        raise EngineError(f"ONNX Runtime is installed, but cannot be loaded: {error}. Install it again.") from error
    folders = [_folder_of(wheel) for wheel in ("onnxruntime", "onnxruntime-gpu")]
    if None not in folders and folders[0] == folders[1]:
        raise EngineError(
            "both onnxruntime and onnxruntime-gpu are installed, and they overwrite each other's files. "
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them again."
        )
    return onnxruntime


def _folder_of(wheel: str) -> Path | None:
    """Return the folder in which a wheel is installed; `None` if it is not."""
    try:
        return Path(str(importlib.metadata.distribution(wheel).locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
