"""Quantised weights in a verification: those of the bundle replace the checkpoint's in the models."""

from __future__ import annotations

from collections.abc import Mapping

from jukebox_deploy.engines import quantised_weights
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.onnxruntime.build import is_ready
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.weights import WeightFile, weights_of_graphs

RoundedWeights = Mapping[int | None, WeightFile]
"""By level, the weight files of the priors that have quantised weights."""


def rounded_weights(graphs: EngineBundle) -> RoundedWeights:
    """Return the quantised weights of an ONNX bundle. Raises `EngineError` if they were packed for one kind of CPU."""
    manifest = graphs.manifest
    if any(is_ready(entry) for entry in manifest.graphs.values()):
        raise EngineError(
            f"{graphs.folder} was made ready for ONNX Runtime, bit for bit what the exported graphs are; verify those."
        )
    quantised = [e.spec for e in manifest.graphs.values() if quantised_weights.facts_of(e) is not None]
    return {
        level: weights_of_graphs(
            graphs.folder / piece.file
            for entry in manifest.graphs.values()
            for piece in entry.pieces
            if entry.spec.model_level == level
        )
        for level in {spec.model_level for spec in quantised}
    }
