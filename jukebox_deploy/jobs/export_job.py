"""Export: a checkpoint bundle in, a bundle of validated ONNX graphs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import write_manifest
from jukebox_deploy.engines.graph_check import check_graph_file
from jukebox_deploy.engines.manifest import GraphEntry, Manifest, Target
from jukebox_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.parallel import trace_all
from jukebox_deploy.export.tracing import parameter_dtypes, tie
from jukebox_deploy.export.validation import check_structure, require_parity
from jukebox_deploy.export.weights import WeightFile, write_weights
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.opening import component_name, eager_engine, tool_versions
from jukebox_deploy.jobs.parity import compare_graph, reason_not_to_run, reference, sizes_to_compare
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck, check_with_tensorrt


@dataclass(frozen=True)
class ExportRequest:
    """What to export."""

    options: GraphOptions = field(default_factory=GraphOptions)
    graphs: tuple[str, ...] = ()  # names; empty: all
    validate: bool = True
    tensorrt: TensorRtCheck = TensorRtCheck.AUTO
    processes: int | None = None  # that trace; None: one per core, at most one per two graphs
    seed: int = 0  # of the inputs that validation makes


@dataclass(frozen=True)
class ExportEvent:
    """Something that was done, for whoever shows progress."""

    action: str  # "trace", "validate" or "tensorrt"
    graph: str
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
        traced: dict[str, ir.Model] = {}
        wanted = list(specs.values())
        for spec, model in trace_all(checkpoint.config, wanted, request.options.precision, request.processes):
            listener(ExportEvent("trace", spec.name))
            traced[spec.name] = model
        for level in dict.fromkeys(spec.model_level for spec in specs.values()):
            mine = {name: spec for name, spec in specs.items() if spec.model_level == level}
            entries |= _save_model(checkpoint, level, [(mine[name], traced.pop(name)) for name in mine], folder)
            if request.validate:
                report |= _validate_model(checkpoint, mine, folder, request, listener)
            gc.collect()
            for name in mine:
                built = check_with_tensorrt(entries[name], folder, request.tensorrt)
                listener(ExportEvent("tensorrt", name, built))
                report.setdefault(name, {})["tensorrt_rtx"] = built
        return write_manifest(
            folder,
            Manifest(
                target=Target.ONNXRUNTIME,
                precision=request.options.precision,
                config=checkpoint.config,
                checkpoint=checkpoint.fingerprint(),
                graphs={name: entries[name] for name in specs},
                tools=tool_versions("jukebox-deploy", "torch", "onnx", "onnxscript", "onnxruntime"),
                parity={"against": "eager", "graphs": report},
                vocabulary=checkpoint.vocabulary.to_json(),
            ),
        )


def select_graphs(config: JukeboxConfig, request: ExportRequest) -> dict[str, GraphSpec]:
    """The tables of the graphs that a request names, step and prefill always together.

    Raises `ExportError` for unknown names.
    """
    declared = declare_graphs(config, request.options)
    if unknown := [name for name in request.graphs if name not in declared]:
        raise ExportError(f"{config.name} has no graphs {unknown}; it has {', '.join(declared)}.")
    wanted = set(request.graphs) | {_partner(name) for name in request.graphs}
    return {name: spec for name, spec in declared.items() if not request.graphs or name in wanted}


def _partner(name: str) -> str:
    """A step is of no use without the prefill that fills its caches, and the other way round."""
    kind, _, level = name.rpartition("_")
    return {"step": f"prefill_{level}", "prefill": f"step_{level}"}.get(kind, name)


def _save_model(
    checkpoint: CheckpointBundle, level: int | None, graphs: Sequence[tuple[GraphSpec, ir.Model]], folder: Path
) -> dict[str, GraphEntry]:
    """Write all graphs of one model and the one file of their weights."""
    dtypes = {name: dtype for spec, model in graphs for name, dtype in parameter_dtypes(spec, model).items()}
    component = component_name(level)
    source = checkpoint.tensors(component)
    loaders = {name: partial(source.load, name) for name in source.infos}
    weights = write_weights(folder / f"{component}.weights", dtypes, loaders)
    return {spec.name: _save_graph(spec, model, folder, weights) for spec, model in graphs}


def _save_graph(spec: GraphSpec, model: ir.Model, folder: Path, weights: WeightFile) -> GraphEntry:
    tie(spec, model, weights)
    path = folder / f"{spec.name}.onnx"
    ir.save(model, path)
    check_structure(path, spec)
    check_graph_file(path, spec, [weights.path.name])
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
    graphs = declare_graphs(checkpoint.config, request.options)
    files = {name: folder / f"{name}.onnx" for name in specs}
    found = OnnxRuntimeEngine(checkpoint.config, graphs, files, OnnxRuntimeOptions(pack_weights=False))
    open_eager = reference(partial(eager_engine, checkpoint, graphs, precision), checkpoint.config)
    report: dict[str, Any] = {}
    for name, spec in specs.items():
        if reason := reason_not_to_run(spec):
            report[name] = {"not_run": reason}
            continue
        rows: list[dict[str, Any]] = []
        for sizes in sizes_to_compare(spec):
            parity = compare_graph(open_eager, found, spec, sizes, precision, request.seed)
            require_parity(name, str(sizes), parity)
            worst = max(parity, key=lambda row: row.relative_error)
            listener(ExportEvent("validate", name, f"{sizes}: relative error {worst.relative_error:.1e}"))
            rows.append({"sizes": sizes, "worst": worst.tensor, "relative_error": worst.relative_error})
        report[name] = {"tolerance": parity[0].tolerance or None, "runs": rows}
    return report
