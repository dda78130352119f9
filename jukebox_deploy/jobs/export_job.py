"""Export: a checkpoint bundle in, a bundle of validated ONNX graphs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphSpec, Precision
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import write_manifest
from jukebox_deploy.engines.manifest import GraphEntry, Manifest, Target
from jukebox_deploy.engines.onnxruntime import OnnxRuntimeEngine
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.tracing import parameter_dtypes, tie, trace
from jukebox_deploy.export.validation import TensorParity, check_structure, compare, require_parity
from jukebox_deploy.export.weights import WeightFile, write_weights
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.graph_runs import run_graph
from jukebox_deploy.jobs.opening import component_name, eager_engine, model_level, tool_versions
from jukebox_deploy.models.builders import build_model

_LARGE_STATES = 256 << 20
"""Bytes of a slot's states above which validation uses one slot only."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export."""

    options: GraphOptions = field(default_factory=GraphOptions)
    graphs: tuple[str, ...] = ()  # names; empty: all
    validate: bool = True
    seed: int = 0  # of the inputs that validation makes


@dataclass(frozen=True)
class ExportEvent:
    """Something that was done, for whoever shows progress."""

    action: str  # "trace", "write", "validate"
    subject: str
    detail: str = ""


Listener = Callable[[ExportEvent], None]


def export_bundle(
    checkpoint: CheckpointBundle, out: Path, request: ExportRequest, listener: Listener = lambda event: None
) -> Manifest:
    """Trace, write and validate the graphs of a checkpoint into the new folder `out`.

    Raises `ExportError` for graphs that there are not and `ParityError` for graphs that disagree with
    the model; then nothing is written.
    """
    specs = select_graphs(checkpoint.config, request)
    entries: dict[str, GraphEntry] = {}
    report: dict[str, Any] = {}
    with atomic_directory(out) as folder:
        for level in dict.fromkeys(model_level(spec) for spec in specs.values()):
            mine = {name: spec for name, spec in specs.items() if model_level(spec) == level}
            entries |= _export_model(checkpoint, level, mine, folder, request.options.precision, listener)
            if request.validate:
                report |= _validate_model(checkpoint, mine, folder, request, listener)
            gc.collect()
        return write_manifest(
            folder,
            Manifest(
                target=Target.ONNXRUNTIME,
                precision=request.options.precision,
                config=checkpoint.config,
                checkpoint=checkpoint.fingerprint(),
                graphs={name: entries[name] for name in specs},
                tools=tool_versions("jukebox-deploy", "torch", "onnx", "onnxscript", "onnxruntime"),
                parity={"against": "eager", "graphs": report} if request.validate else None,
                vocabulary=checkpoint.vocabulary,
            ),
        )


def select_graphs(config: JukeboxConfig, request: ExportRequest) -> dict[str, GraphSpec]:
    """The tables of the graphs that a request names; `ExportError` for unknown names."""
    declared = declare_graphs(config, request.options)
    if unknown := [name for name in request.graphs if name not in declared]:
        raise ExportError(f"{config.name} has no graphs {unknown}; it has {', '.join(declared)}.")
    return {name: spec for name, spec in declared.items() if not request.graphs or name in request.graphs}


def _export_model(
    checkpoint: CheckpointBundle,
    level: int | None,
    specs: Mapping[str, GraphSpec],
    folder: Path,
    precision: Precision,
    listener: Listener,
) -> dict[str, GraphEntry]:
    """All graphs of one model, with one weight file."""
    traced: dict[str, ir.Model] = {}
    for name, spec in specs.items():
        listener(ExportEvent("trace", name))
        traced[name] = trace(spec, partial(build_model, checkpoint.config, level, precision))
    dtypes = {name: dtype for model in traced.values() for name, dtype in parameter_dtypes(model).items()}
    component = component_name(level)
    source = checkpoint.tensors(component)
    listener(ExportEvent("write", f"{component}.weights"))
    loaders = {name: partial(source.load, name) for name in source.infos}
    weights = write_weights(folder / f"{component}.weights", dtypes, loaders)
    return {name: _save(model, specs[name], folder, weights) for name, model in traced.items()}


def _save(model: ir.Model, spec: GraphSpec, folder: Path, weights: WeightFile) -> GraphEntry:
    tie(model, weights)
    path = folder / f"{spec.name}.onnx"
    ir.save(model, path)
    check_structure(path, spec)
    return GraphEntry(spec, path.name, (weights.path.name,))


def _validate_model(
    checkpoint: CheckpointBundle,
    specs: Mapping[str, GraphSpec],
    folder: Path,
    request: ExportRequest,
    listener: Listener,
) -> dict[str, Any]:
    """Compare every graph with the model at sizes other than the traced ones; the report by graph."""
    precision = request.options.precision
    if precision is Precision.BF16:
        reason = "ONNX Runtime multiplies no bf16 matrices on a CPU"
        return {name: {"not_run": reason} for name in specs}
    graphs = declare_graphs(checkpoint.config, request.options)
    files = {name: folder / f"{name}.onnx" for name in specs}
    found_engine = OnnxRuntimeEngine(checkpoint.config, graphs, files)
    report: dict[str, Any] = {}
    for name, spec in specs.items():
        rows: list[dict[str, Any]] = []
        for sizes in _validation_sizes(spec):
            eager = eager_engine(checkpoint, graphs, precision)
            parity = _compare_graph(eager, found_engine, spec, sizes, request)
            require_parity(name, str(sizes), parity)
            worst = max(parity, key=lambda row: row.relative_error)
            listener(ExportEvent("validate", name, f"{sizes}: relative error {worst.relative_error:.1e}"))
            rows.append({"sizes": sizes, "worst": worst.tensor, "relative_error": worst.relative_error})
        report[name] = {"tolerance": parity[0].tolerance or None, "runs": rows}
    return report


def _validation_sizes(spec: GraphSpec) -> Sequence[dict[str, int]]:
    """Two sets of sizes, none of them those of tracing unless a size is fixed."""
    ranges = {r.symbol: r for r in spec.ranges}
    slots = ranges["B"]
    state_bytes = sum(t.bytes({"B": 1}) for t in spec.states)
    many = slots.minimum if state_bytes > _LARGE_STATES else min(slots.maximum, 3)
    if "T" in ranges:
        return [{"B": slots.minimum, "T": 7}, {"B": many, "T": 33}]
    return [{"B": b} for b in dict.fromkeys((slots.minimum, many))]


def _compare_graph(
    eager: Engine, found: Engine, spec: GraphSpec, sizes: dict[str, int], request: ExportRequest
) -> list[TensorParity]:
    def feed(tensor: Any) -> np.ndarray:
        return random_feed(tensor, spec, found.config, sizes, request.seed)

    expected = run_graph(eager, spec, sizes["B"], feed)
    del eager
    return compare(expected, run_graph(found, spec, sizes["B"], feed), request.options.precision)
