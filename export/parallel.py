"""Tracing of several graphs in several processes, because tracing is single-threaded Python code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import onnx
import onnx_ir as ir

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import SLOT_GRAPHS, VQVAE_GRAPHS, GraphKind, GraphSpec, Precision
from jukebox_deploy.export.tracing import GraphToTrace, trace_together
from jukebox_deploy.graph_cutting import cut_graph
from jukebox_deploy.models.builders import build_model
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE
from jukebox_deploy.processes import map_in_processes
from jukebox_deploy.threads import usable_cores


@dataclass(frozen=True)
class TraceRequest:
    """Graphs of one model to trace, in order."""

    config: JukeboxConfig
    specs: Sequence[GraphSpec]
    precision: Precision
    parts: Mapping[int, int] = field(default_factory=dict)  # level -> number of parts of step and prefill; default: 1

    def tables(self, spec: GraphSpec) -> tuple[GraphSpec, ...]:
        """Return the declarations of a graph's parts, or its own if it is not cut. Raises `ConfigError`."""
        if spec.kind not in SLOT_GRAPHS:
            return (spec,)
        return cut_graph(spec, self.config.prior(spec.level), self.parts.get(spec.level, 1))


def trace_all(request: TraceRequest, processes: int | None = None) -> Iterator[tuple[GraphSpec, ir.Model]]:
    """Trace graphs in several processes; by default one per core, but at most one per two graphs.

    Yields each graph or part with its model, in order. Graphs that differ only in their weights, such as those of two
    upsamplers of the same architecture, are traced once. Raises `ExportError` like `trace_together`.
    """
    distinct: dict[Hashable, GraphSpec] = {}
    for spec in request.specs:
        distinct.setdefault(_structure(request, spec), spec)
    coming = zip(distinct, _trace_distinct(request, list(distinct.values()), processes), strict=True)
    traced: dict[Hashable, list[bytes]] = {}
    for spec in request.specs:
        structure = _structure(request, spec)
        while structure not in traced:
            traced.update([next(coming)])
        for table, data in zip(request.tables(spec), traced[structure], strict=True):
            model = ir.from_proto(_parse(data))
            model.graph.name = table.name
            yield table, model


def _structure(request: TraceRequest, spec: GraphSpec) -> Hashable:
    """Return everything on which a traced graph depends, except weights."""
    if spec.kind not in SLOT_GRAPHS:
        return spec
    prior, tables = request.config.prior(spec.level), request.tables(spec)
    same = (prior.transformer, prior.tied_output, prior.readds_conditioning)
    return (spec.kind, *(replace(table, level=0) for table in tables), *same)


def _trace_distinct(request: TraceRequest, specs: Sequence[GraphSpec], processes: int | None) -> Iterator[list[bytes]]:
    """Yield the serialised models of each graph, in order."""
    if processes is None:
        processes = max(1, min(usable_cores(), len(specs) // 2))
    shares = _deal(specs, processes)
    calls = [(replace(request, specs=share),) for share in shares]
    traced: dict[GraphSpec, list[bytes]] = {}
    for share, models in zip(shares, map_in_processes(_trace_to_bytes, calls, processes), strict=True):
        traced |= zip(share, models, strict=True)
    yield from (traced[spec] for spec in specs)


def _deal(specs: Sequence[GraphSpec], processes: int) -> list[list[GraphSpec]]:
    """Distribute graphs evenly among processes, the most expensive first; a process traces its share in one call."""
    shares: list[list[GraphSpec]] = [[] for _ in range(processes)]
    for spec in sorted(specs, key=_effort, reverse=True):
        min(shares, key=lambda share: sum(map(_effort, share))).append(spec)
    return [share for share in shares if share]


def _effort(spec: GraphSpec) -> int:
    """Estimate the time to trace a graph, as a multiple of the cheapest kind (measured with the preset `tiny`)."""
    deeper = spec.level if spec.kind in VQVAE_GRAPHS else 0
    return _EFFORT[spec.kind] + deeper


_EFFORT = {
    GraphKind.CONDITION: 1,
    GraphKind.VQVAE_ENCODE: 2,
    GraphKind.VQVAE_DECODE: 2,
    GraphKind.LYRICS: 6,
    GraphKind.PREFILL: 6,
    GraphKind.STEP: 7,
}


def _builder(request: TraceRequest, spec: GraphSpec) -> partial[VQVAE | Prior]:
    return partial(build_model, request.config, spec.model_level, request.precision)


def _trace_to_bytes(request: TraceRequest) -> list[list[bytes]]:
    graphs = [GraphToTrace(spec, _builder(request, spec), request.tables(spec)) for spec in request.specs]
    return [[ir.to_proto(model).SerializeToString() for model in models] for models in trace_together(graphs)]


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model
