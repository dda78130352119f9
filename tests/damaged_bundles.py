"""Engine bundles whose hashes are right and whose contents are not."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from jukebox_deploy.contract import Precision, numpy_dtype
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest


def with_changed_manifest(bundle: EngineBundle, folder: Path, **changes: Any) -> EngineBundle:
    """A copy of a bundle with another manifest over the same files."""
    shutil.copytree(bundle.folder, folder)
    write_manifest(folder, dataclasses.replace(bundle.manifest, **changes))
    return open_bundle(folder)


def with_flipped_weight(bundle: EngineBundle, folder: Path, graph: str, tensor: str) -> EngineBundle:
    """A copy in which one bit is another: in the exponent of a weight in the middle of a graph's tensor."""

    def flip(weights: np.ndarray) -> None:
        weights[weights.size // 8 * 4 + 3] ^= 0x40  # the highest byte of a float32

    return _with_changed_bytes(bundle, folder, graph, tensor, flip)


def with_zeroed_weight(bundle: EngineBundle, folder: Path, graph: str, tensor: str) -> EngineBundle:
    """A copy in which a graph's tensor is all zeros."""
    return _with_changed_bytes(bundle, folder, graph, tensor, lambda weights: weights.fill(0))


def with_scaled_weight(
    bundle: EngineBundle, folder: Path, graph: str, tensor: str, factor: float, precision: Precision = Precision.FP32
) -> EngineBundle:
    """A copy in which a graph's tensor is multiplied; `precision`: of its elements."""

    def scale(weights: np.ndarray) -> None:
        elements = weights.view(numpy_dtype(precision.dtype))
        elements *= elements.dtype.type(factor)

    return _with_changed_bytes(bundle, folder, graph, tensor, scale)


def _with_changed_bytes(
    bundle: EngineBundle, folder: Path, graph: str, tensor: str, change: Callable[[np.ndarray], None]
) -> EngineBundle:
    """A copy in which the bytes of one tensor are changed in place."""
    shutil.copytree(bundle.folder, folder)
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    (found,) = [t for t in model.graph.initializer if t.name == tensor]
    place = {entry.key: entry.value for entry in found.external_data}
    weights = folder / place["location"]
    data = np.fromfile(weights, np.uint8)
    change(data[int(place["offset"]) :][: int(place["length"])])
    data.tofile(weights)
    write_manifest(folder, bundle.manifest)
    return open_bundle(folder)
