"""Engine bundles whose hashes are right and whose contents are not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import onnx

from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest


def with_changed_manifest(bundle: EngineBundle, folder: Path, **changes: Any) -> EngineBundle:
    """A copy of a bundle with another manifest over the same files."""
    shutil.copytree(bundle.folder, folder)
    write_manifest(folder, dataclasses.replace(bundle.manifest, **changes))
    return open_bundle(folder)


def with_flipped_weight(bundle: EngineBundle, folder: Path, graph: str, tensor: str) -> EngineBundle:
    """A copy in which one bit is another: in the exponent of a weight in the middle of a graph's tensor."""
    shutil.copytree(bundle.folder, folder)
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    (found,) = [t for t in model.graph.initializer if t.name == tensor]
    place = {entry.key: entry.value for entry in found.external_data}
    weights = folder / place["location"]
    data = bytearray(weights.read_bytes())
    exponent = int(place["offset"]) + int(place["length"]) // 8 * 4 + 3  # the highest byte of a float32
    data[exponent] ^= 0x40
    weights.write_bytes(data)
    write_manifest(folder, bundle.manifest)
    return open_bundle(folder)
