"""Locating a difference that a verification found: the first layer whose result differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.engines.tensorrt.runtime import Platform
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.validation import TensorParity
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.comparison.difference import (
    Arrays,
    Difference,
    RunPiece,
    find_difference,
    first_difference,
    results_of_modules,
    run_on_cpu,
)
from jukebox_deploy.jobs.comparison.marked_engines import MarkedEngines
from jukebox_deploy.jobs.opening.eager import load_model
from jukebox_deploy.jobs.verification.weights import RoundedWeights


@dataclass(frozen=True)
class OriginFinder:
    """Compares the graph of a check with its model, module by module: the ONNX graph, then the engine built from it."""

    checkpoint: CheckpointBundle
    graphs: EngineBundle | None  # the ONNX graphs that engines were built from; `None`: not available
    rounded: RoundedWeights
    platform: Platform | None = None  # where the checked engines run; `None`: the graphs themselves were checked
    searched: set[str] = field(default_factory=set)  # graphs of which an engine was built to look for the layer

    def origin(self, spec: GraphSpec, feeds: Mapping[str, np.ndarray], rows: Sequence[TensorParity] = ()) -> str:
        """Describe where a difference starts. `feeds`: inputs by name that showed it; `rows`: compared tensors."""
        if self.graphs is None:
            return first_difference(rows)
        find = self._search(self.graphs, spec, feeds)
        try:
            found = find(run_on_cpu)
        except EngineError as error:  # where engines run, ONNX Runtime need not be installed
            return f"{first_difference(rows)} (the layer was not looked for: {error})".strip()
        if found.module is not None or self.platform is None:
            return str(found)
        first = first_difference(rows)
        differs = "the ONNX graph agrees with the model, so it is the engine that differs" + (first and f"; {first}")
        if spec.name in self.searched:  # such a build may take as long as that of the engine
            return differs
        self.searched.add(spec.name)
        engines = MarkedEngines(self.platform, self.graphs.manifest.graphs[spec.name].weights)
        return f"{differs}. {_inside(find, engines)}"

    def _search(
        self, graphs: EngineBundle, spec: GraphSpec, feeds: Mapping[str, np.ndarray]
    ) -> Callable[[RunPiece], Difference]:
        """Return a function that compares module by module what runs a graph with the model."""
        precision, level = spec.precision, spec.model_level
        exact = None if precision is Precision.FP32 else self._exact_results(spec, feeds)
        model = load_model(self.checkpoint, level, graphs.manifest.precision, self.rounded.get(level))
        tables = graphs.parts.get(spec.name) or (graphs.graphs[spec.name],)
        pieces = [GraphFile.read(table, graphs.paths[table.name]) for table in tables]
        return lambda run: find_difference(pieces, graph_module(spec, model), feeds, precision, run, exact)

    def _exact_results(self, spec: GraphSpec, feeds: Arrays) -> Arrays:
        """Return the results of the modules of the model in fp32, which is freed before the other is loaded."""
        model = load_model(self.checkpoint, spec.model_level, Precision.FP32, self.rounded.get(spec.model_level))
        return results_of_modules(graph_module(declare_graphs(self.checkpoint.config)[spec.name], model), feeds)


def _inside(find: Callable[[RunPiece], Difference], engines: MarkedEngines) -> str:
    """Describe where a difference starts in an engine that is built again with the results of its layers."""
    try:
        found = find(engines.run)
    except EngineError as error:
        return f"The layer was not found: {error}"
    if found.module is None:
        return (
            f"In an engine built again with the results of its layers as outputs, all {found.agreeing} layers agree: "
            "the engine file differs from its graph, or the difference comes from fusing layers"
        )
    return f"In an engine built again with the results of its layers as outputs, {found}"
