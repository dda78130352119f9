"""Locating a difference that a verification found: the first layer whose result differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.validation import TensorParity
from jukebox_deploy.jobs.comparison.difference import find_difference, first_difference
from jukebox_deploy.jobs.comparison.parity import reason_not_to_run
from jukebox_deploy.jobs.opening.eager import load_model
from jukebox_deploy.jobs.verification.weights import RoundedWeights


@dataclass(frozen=True)
class OriginFinder:
    """Compares the ONNX graph of a check with its model, module by module, on a processor."""

    checkpoint: CheckpointBundle
    graphs: EngineBundle | None  # the ONNX graphs that engines were built from; `None`: not available
    rounded: RoundedWeights
    runs_graphs: bool  # the graphs themselves were checked, not engines built from them

    def origin(self, spec: GraphSpec, feeds: Mapping[str, np.ndarray], rows: Sequence[TensorParity] = ()) -> str:
        """Describe where a difference starts. `feeds`: inputs by name that showed it; `rows`: compared tensors."""
        if self.graphs is None or reason_not_to_run(spec):
            return first_difference(rows)  # the inside of an engine cannot be inspected
        precision, level = spec.precision, spec.model_level
        model = load_model(self.checkpoint, level, self.graphs.manifest.precision, self.rounded.get(level))
        tables = self.graphs.parts.get(spec.name) or (self.graphs.graphs[spec.name],)
        pieces = [GraphFile.read(table, self.graphs.paths[table.name]) for table in tables]
        try:
            found = find_difference(pieces, graph_module(spec, model), feeds, precision)
        except EngineError as error:  # where engines run, ONNX Runtime need not be installed
            return f"{first_difference(rows)} (the layer was not looked for: {error})".strip()
        if found.module is None and not self.runs_graphs:
            return f"the ONNX graph agrees with the model, so it is the engine that differs. {first_difference(rows)}"
        return str(found)
