"""Does NVIDIA's own parser and builder take the exported graphs? Asked without a GPU, result thrown away."""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from pathlib import Path

from jukebox_deploy.engines.manifest import GraphEntry, Target
from jukebox_deploy.engines.tensorrt.build import BuildOptions, build_engine
from jukebox_deploy.files import scratch_folder

SMALL_WEIGHTS = 256 << 20
"""Bytes of weights up to which a graph is built as a matter of course; a build takes several times as much memory."""


class TensorRtCheck(StrEnum):
    """When an export has its graphs built by TensorRT-RTX."""

    AUTO = "auto"  # where it is installed, and the weights are small
    ALWAYS = "always"
    NEVER = "never"


def check_with_tensorrt(entry: GraphEntry, folder: Path, check: TensorRtCheck) -> str:
    """Parse and build one graph for compute capability 8.9; says what was done.

    Raises `EngineError` if the graph is refused, or if `check` insists and the package is missing.
    """
    if check is TensorRtCheck.NEVER:
        return "not asked for"
    if check is TensorRtCheck.AUTO:
        if importlib.util.find_spec("tensorrt_rtx") is None:
            return "tensorrt-rtx is not installed"
        if (size := _weight_bytes(entry, folder)) > SMALL_WEIGHTS:
            return f"{size / 1e9:.1f} GB of weights: build it with `jukebox-deploy build`"
    options = BuildOptions(Target.TENSORRT_RTX, ("8.9",))
    layers = 0
    with scratch_folder(folder) as scratch:
        for piece in entry.pieces:
            engine = scratch / f"{piece.spec.name}.engine"
            layers += build_engine(folder / piece.file, piece.spec, engine, options, entry.weights).layers
    return f"built for 8.9, {layers} layers" + (f" in {len(entry.parts)} parts" if entry.parts else "")


def _weight_bytes(entry: GraphEntry, folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in entry.weights)
