"""Export: make a bundle of validated ONNX graphs from a checkpoint bundle."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import onnx_ir as ir

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.components import component_name
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import SLOT_GRAPHS, GraphKind, GraphSpec, LinearWeights, graph_name, sizes_text
from jukebox_deploy.engines import quantised_weights
from jukebox_deploy.engines.bundle import write_manifest
from jukebox_deploy.engines.graph_check import check_graph_file
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart, Manifest, Target
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.sessions import OnnxRuntimeOptions
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.export.parallel import TraceRequest, trace_all
from jukebox_deploy.export.stored_weights import store_quantised
from jukebox_deploy.export.tracing import parameter_dtypes, tie
from jukebox_deploy.export.validation import check_structure, require_parity
from jukebox_deploy.export.weights import RawTensor, WeightFile, plain_tensors, weights_of_graphs, write_weights
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.comparison.parity import compare_graph, reference, sizes_to_compare
from jukebox_deploy.jobs.export_progress import ProgressListener, Teller
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.quantised_export import QuantisationRequest, Quantiser
from jukebox_deploy.jobs.sampling_advice import bundle_advice
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck, check_with_tensorrt
from jukebox_deploy.listing import listed, words_of
from jukebox_deploy.tool_versions import tool_versions


@dataclass(frozen=True)
class ExportRequest:
    """What to export."""

    options: GraphOptions = field(default_factory=GraphOptions)
    graphs: tuple[str, ...] = ()  # names; empty: all
    validate: bool = True
    tensorrt: TensorRtCheck = TensorRtCheck.AUTO
    processes: int | None = None  # for tracing; None: one per core, at most one per two graphs
    seed: int = 0  # of the random inputs for validation
    quantisation: QuantisationRequest = field(default_factory=QuantisationRequest)
    cutting: Cutting = field(default_factory=Cutting)  # of steps and prefills

    @property
    def quantises(self) -> bool:
        """Whether weights are quantised."""
        return self.quantisation.weights is not LinearWeights.AS_PRECISION

    @property
    def declared_options(self) -> GraphOptions:
        """The options that graphs are declared with; measuring the quality of quantised weights needs logits."""
        measured = self.quantises and self.quantisation.judge_quality
        return replace(self.options, logits=self.options.logits or measured)

    def parts(self, config: JukeboxConfig) -> dict[int, int]:
        """Return the number of parts for the level of each prior. Raises `ExportError` as `Cutting.parts_of` does."""
        options, weights = self.options, self.quantisation.weights
        return {p.level: self.cutting.parts_of(p, options.precision, weights) for p in config.priors}


@dataclass(frozen=True)
class ExportEvent:
    """A finished action, for progress display."""

    action: str  # "trace", "quantise", "validate", "quality" or "tensorrt"
    graph: str
    detail: str = ""


Listener = Callable[[ExportEvent], None]

_NAMED = 3  # graphs that a line of progress names

TracedGraph = tuple[GraphSpec, ir.Model]
"""A tensor table, and the graph traced for it."""

Entries = Mapping[str, GraphEntry]
"""Saved graphs by name."""


def export_bundle(
    checkpoint: CheckpointBundle,
    out: Path,
    request: ExportRequest,
    listener: Listener = lambda event: None,
    progress: ProgressListener = lambda progress: None,
) -> Manifest:
    """Trace, write and validate the graphs of a checkpoint into the new folder `out`.

    The quality of quantised weights is measured whether or not graphs are validated, unless `request.quantisation`
    disables it. Raises `ExportError` for unknown graphs and layers, `SamplingError` for invalid sampling settings
    next to the checkpoint and for songs that cannot calibrate a prior, and `ParityError` for graphs that disagree with
    the model or lose too much quality by quantisation; then nothing is written.
    """
    specs = select_graphs(checkpoint.config, request)
    advice = bundle_advice(checkpoint)
    quantiser = _quantiser(checkpoint, request, specs) if request.quantises else None
    teller = Teller(progress, len(specs))
    job = _Export(checkpoint, request, quantiser, listener, teller)
    report: dict[str, Any] = {}
    with atomic_directory(out) as folder:
        entries = job.write(specs, folder, report)
        teller.begin("hashing the files")
        manifest = write_manifest(
            folder,
            Manifest(
                target=Target.ONNXRUNTIME,
                precision=request.options.precision,
                linear_weights=request.quantisation.weights,
                config=checkpoint.config,
                checkpoint=checkpoint.fingerprint(),
                graphs={name: entries[name] for name in specs},
                tools=tool_versions("jukebox-deploy", "torch", "onnx", "onnxscript", "onnxruntime"),
                parity={"against": "eager", "graphs": report},
                vocabulary=checkpoint.vocabulary.to_json(),
                sampling=advice.to_json(),
            ),
        )
    teller.finish()
    return manifest


def select_graphs(config: JukeboxConfig, request: ExportRequest) -> dict[str, GraphSpec]:
    """Return the tables of the graphs that a request names; step and prefill always come together.

    Raises `ExportError` for unknown names.
    """
    declared = declare_graphs(config, request.declared_options)
    if unknown := [name for name in request.graphs if name not in declared]:
        raise ExportError(f"{config.name} has no graph {words_of(unknown, 'or')}; it has {words_of(declared)}.")
    wanted = {name for graph in request.graphs for name in _with_partner(declared[graph])}
    return {name: spec for name, spec in declared.items() if not request.graphs or name in wanted}


def _with_partner(spec: GraphSpec) -> Sequence[str]:
    """Return the names of a graph and its partner: a step needs the prefill that fills its caches, and vice versa."""
    return [graph_name(kind, spec.level) for kind in SLOT_GRAPHS] if spec.states else [spec.name]


def _quantiser(checkpoint: CheckpointBundle, request: ExportRequest, specs: Mapping[str, GraphSpec]) -> Quantiser:
    """Return what quantises the priors of these graphs; it is sure to have what it needs."""
    quantiser = Quantiser(checkpoint, request.quantisation, request.seed)
    quantiser.require_songs(sorted({spec.level for spec in specs.values() if spec.states}))
    return quantiser


@dataclass(frozen=True)
class _Export:
    """One export in progress."""

    checkpoint: CheckpointBundle
    request: ExportRequest
    quantiser: Quantiser | None
    listener: Listener
    teller: Teller

    def write(self, specs: Mapping[str, GraphSpec], folder: Path, report: dict[str, Any]) -> dict[str, GraphEntry]:
        """Write everything except the manifest; results of checks are added to `report`, by graph."""
        config = self.checkpoint.config
        tracing = TraceRequest(config, list(specs.values()), self.request.options.precision, self.request.parts(config))
        traced = self._trace(tracing)
        entries: dict[str, GraphEntry] = {}
        for level in dict.fromkeys(spec.model_level for spec in specs.values()):
            mine = {name: spec for name, spec in specs.items() if spec.model_level == level}
            tables = {name: tracing.tables(spec) for name, spec in mine.items()}
            graphs = {name: [(table, traced.pop(table.name)) for table in tables[name]] for name in mine}
            saved = self._save_model(level, graphs, folder)
            if self.request.validate:
                report |= self._validate_model(level, saved, folder)
            if self.quantiser is not None and level is not None:
                saved = self._judge(level, saved, folder, self.quantiser)
            entries |= saved
            gc.collect()
            for name in mine:
                report.setdefault(name, {})["tensorrt_rtx"] = self._check_with_tensorrt(entries[name], folder)
                self.teller.count()
        return entries

    def _trace(self, tracing: TraceRequest) -> dict[str, ir.Model]:
        """Trace all graphs, or their parts. Each process traces its share in one call, so all are in work at once."""
        tables = {spec.name: {table.name for table in tracing.tables(spec)} for spec in tracing.specs}
        traced: dict[str, ir.Model] = {}
        self.teller.begin(f"tracing {listed(tables, _NAMED)}")
        for spec, model in trace_all(tracing, self.request.processes):
            self.listener(ExportEvent("trace", spec.name))
            traced[spec.name] = model
            if left := [name for name, own in tables.items() if not own <= traced.keys()]:
                self.teller.begin(f"tracing {listed(left, _NAMED)}")
        return traced

    def _check_with_tensorrt(self, entry: GraphEntry, folder: Path) -> str:
        if self.request.tensorrt is TensorRtCheck.NEVER:
            return check_with_tensorrt(entry, folder, self.request.tensorrt)
        self.teller.begin(f"checking {entry.spec.name} with TensorRT-RTX")
        built = check_with_tensorrt(entry, folder, self.request.tensorrt)
        self.listener(ExportEvent("tensorrt", entry.spec.name, built))
        return built

    def _save_model(
        self, level: int | None, graphs: Mapping[str, Sequence[TracedGraph]], folder: Path
    ) -> dict[str, GraphEntry]:
        """Write all graphs of one model, whole or in parts, and the single file of their weights."""
        pieces = [piece for some in graphs.values() for piece in some]
        dtypes = {name: dtype for spec, model in pieces for name, dtype in parameter_dtypes(spec, model).items()}
        component = component_name(level)
        self.teller.begin(f"writing the graphs and weights of {component}")
        source = self.checkpoint.tensors(component)
        loaders = {name: partial(source.load, name) for name in source.infos}
        quantised: Iterator[RawTensor] = iter(())
        if self.quantiser is not None and level is not None:
            chosen = {name: dtypes.pop(name) for name in self.quantiser.choice(level).quantised if name in dtypes}
            for spec, model in pieces:
                count = store_quantised(spec, model, chosen, self.quantiser.form)
                if count:
                    self.listener(ExportEvent("quantise", spec.name, f"{count} weights to {self.quantiser.form.dtype}"))
            quantised = self.quantiser.tensors(level, chosen)
        weights = write_weights(folder / f"{component}.weights", chain(plain_tensors(dtypes, loaders), quantised))
        tables = declare_graphs(self.checkpoint.config, self.request.declared_options)
        return {name: _save_graph(tables[name], some, folder, weights) for name, some in graphs.items()}

    def _rounded(self, level: int | None, entries: Entries, folder: Path) -> dict[int | None, WeightFile]:
        """Return the quantised weights that the model gets when a graph is compared with it."""
        if self.quantiser is None or level is None:
            return {}
        return {level: weights_of_graphs(_files(entries, folder).values())}

    def _engine(self, entries: Entries, folder: Path, options: OnnxRuntimeOptions | None = None) -> OnnxRuntimeEngine:
        """Open the saved graphs on ONNX Runtime."""
        config = self.checkpoint.config
        tables = declare_graphs(config, self.request.declared_options)
        parts = {name: tuple(part.spec for part in entry.parts) for name, entry in entries.items() if entry.parts}
        return OnnxRuntimeEngine(config, tables, _files(entries, folder), options, parts)

    def _validate_model(self, level: int | None, entries: Entries, folder: Path) -> dict[str, Any]:
        """Compare every graph with the model at sizes other than the traced ones; return a report by graph."""
        precision, config = self.request.options.precision, self.checkpoint.config
        # Rounding activations could hide a wrong graph; `_judge` measures the cost of rounding separately.
        found = self._engine(entries, folder, OnnxRuntimeOptions(map_weights=True, round_activations=False))
        rounded = self._rounded(level, entries, folder)
        open_eager = reference(partial(eager_engine, self.checkpoint, found.graphs, precision, rounded=rounded), config)
        report: dict[str, Any] = {}
        for name, entry in entries.items():
            rows: list[dict[str, Any]] = []
            for sizes in sizes_to_compare(entry.spec):
                self.teller.begin(f"comparing {name} with PyTorch")
                parity = compare_graph(open_eager, found, entry.spec, sizes, self.request.seed)
                where = sizes_text(sizes)
                require_parity(name, where, parity)
                worst = max(parity, key=lambda row: row.relative_error)
                self.listener(ExportEvent("validate", name, f"{where}: relative error {worst.relative_error:.1e}"))
                rows.append({"sizes": sizes, "worst": worst.tensor, "relative_error": worst.relative_error})
            report[name] = {"tolerance": parity[0].tolerance or None, "runs": rows}
        return report

    def _judge(self, level: int, entries: Entries, folder: Path, quantiser: Quantiser) -> dict[str, GraphEntry]:
        """Measure the quality of a prior's quantised weights, if requested, and record it with its graphs."""
        step = entries.get(graph_name(GraphKind.STEP, level))
        quality = None
        if step is not None and quantiser.request.judge_quality:
            self.teller.begin(f"measuring what {quantiser.request.weights} weights cost in {step.spec.name}")
            quality = quantiser.judge(self._engine(entries, folder), step.spec)  # in use, activations are rounded
            self.listener(ExportEvent("quality", step.spec.name, str(quality)))
        facts = quantiser.facts(level, self._rounded(level, entries, folder).get(level), quality)
        return {name: replace(entry, options={quantised_weights.KEY: facts}) for name, entry in entries.items()}


def _files(entries: Entries, folder: Path) -> dict[str, Path]:
    return {piece.spec.name: folder / piece.file for entry in entries.values() for piece in entry.pieces}


def _save_graph(spec: GraphSpec, pieces: Sequence[TracedGraph], folder: Path, weights: WeightFile) -> GraphEntry:
    """Save a graph, whole or as its parts."""
    saved = tuple(GraphPart(table, _save_piece(table, model, folder, weights)) for table, model in pieces)
    if len(saved) == 1:
        return GraphEntry(spec, saved[0].file, (weights.path.name,))
    return GraphEntry(spec, "", (weights.path.name,), parts=saved)


def _save_piece(spec: GraphSpec, model: ir.Model, folder: Path, weights: WeightFile) -> str:
    tie(spec, model, weights)
    path = folder / f"{spec.name}.onnx"
    ir.save(model, path)
    check_structure(path, spec)
    check_graph_file(path, spec, [weights.path.name])
    return path.name
