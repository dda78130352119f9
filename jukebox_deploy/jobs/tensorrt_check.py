"""A check that TensorRT-RTX can parse and build exported graphs; it needs no GPU and discards the engines."""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from pathlib import Path

from jukebox_deploy.engines.manifest import GraphEntry, Target
from jukebox_deploy.engines.tensorrt.build import BuildOptions, build_engine
from jukebox_deploy.files import scratch_folder
from jukebox_deploy.quantities import byte_size

SMALL_WEIGHTS = 256 << 20
"""Largest weights in bytes of a graph built by default; a build needs several times as much memory."""


class TensorRtCheck(StrEnum):
    """When an export checks its graphs with TensorRT-RTX."""

    AUTO = "auto"  # if it is installed and the weights are small
    ALWAYS = "always"
    NEVER = "never"


def check_with_tensorrt(entry: GraphEntry, folder: Path, check: TensorRtCheck) -> str:
    """Parse and build one graph for compute capability 8.9; return a description of the result.

    Raises `EngineError` if the graph is rejected, or if `check` is ALWAYS and the package is missing.
    """
    if check is TensorRtCheck.NEVER:
        return "not asked for"
    if check is TensorRtCheck.AUTO:
        if importlib.util.find_spec("tensorrt_rtx") is None:
            return "tensorrt-rtx is not installed"
        if (size := _weight_bytes(entry, folder)) > SMALL_WEIGHTS:
            return f"{byte_size(size)} of weights: build it with `jukebox-deploy build`"
    options = BuildOptions(Target.TENSORRT_RTX, ("8.9",))
    layers = 0
    with scratch_folder(folder) as scratch:
        for piece in entry.pieces:
            engine = scratch / f"{piece.spec.name}.engine"
            layers += build_engine(folder / piece.file, piece.spec, engine, options, entry.weights).layers
    return f"built for 8.9, {layers} layers" + (f" in {len(entry.parts)} parts" if entry.parts else "")


def _weight_bytes(entry: GraphEntry, folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in entry.weights)
