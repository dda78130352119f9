"""Tracing is single-threaded Python: several graphs are traced in several processes."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from functools import partial

import onnx
import onnx_ir as ir

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.export.tracing import trace_together
from jukebox_deploy.models.builders import build_model
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE
from jukebox_deploy.processes import map_in_processes


def trace_all(
    config: JukeboxConfig, specs: Sequence[GraphSpec], precision: Precision, processes: int | None = None
) -> Iterator[tuple[GraphSpec, ir.Model]]:
    """Trace graphs, in order, in so many processes; without a number one per core, at most one per two graphs.

    Graphs that differ in their weights alone, as those of two like upsamplers, are traced once.
    Raises `ExportError` as `trace_together` does.
    """
    distinct: dict[Hashable, GraphSpec] = {}
    for spec in specs:
        distinct.setdefault(_structure(config, spec), spec)
    coming = zip(distinct, _trace_distinct(config, list(distinct.values()), precision, processes), strict=True)
    traced: dict[Hashable, bytes] = {}
    for spec in specs:
        structure = _structure(config, spec)
        while structure not in traced:
            traced.update([next(coming)])
        model = ir.from_proto(_parse(traced[structure]))
        model.graph.name = spec.name
        yield spec, model


def _structure(config: JukeboxConfig, spec: GraphSpec) -> Hashable:
    """What a traced graph depends on, weights apart."""
    if spec.kind not in (GraphKind.STEP, GraphKind.PREFILL):
        return spec
    prior = config.prior(spec.level)
    return (spec.kind, spec.tensors, spec.ranges, prior.transformer, prior.tied_output, prior.readds_conditioning)


def _trace_distinct(
    config: JukeboxConfig, specs: Sequence[GraphSpec], precision: Precision, processes: int | None
) -> Iterator[bytes]:
    """The traced graphs, serialised, one after the other."""
    if processes is None:
        processes = max(1, min(os.cpu_count() or 1, len(specs) // 2))
    shares = _deal(specs, processes)
    calls = [(config, share, precision) for share in shares]
    traced: dict[GraphSpec, bytes] = {}
    for share, models in zip(shares, map_in_processes(_trace_to_bytes, calls, processes), strict=True):
        traced |= zip(share, models, strict=True)
    yield from (traced[spec] for spec in specs)


def _deal(specs: Sequence[GraphSpec], processes: int) -> list[list[GraphSpec]]:
    """A share for each process, which traces it together; the dearest graphs are dealt first."""
    shares: list[list[GraphSpec]] = [[] for _ in range(processes)]
    for spec in sorted(specs, key=_effort, reverse=True):
        min(shares, key=lambda share: sum(map(_effort, share))).append(spec)
    return [share for share in shares if share]


def _effort(spec: GraphSpec) -> int:
    """About how long a graph takes to trace, as a multiple of the cheapest: by kind, as measured with `tiny`."""
    deeper = spec.level if spec.kind in (GraphKind.VQVAE_ENCODE, GraphKind.VQVAE_DECODE) else 0
    return _EFFORT[spec.kind] + deeper


_EFFORT = {
    GraphKind.CONDITION: 1,
    GraphKind.VQVAE_ENCODE: 2,
    GraphKind.VQVAE_DECODE: 2,
    GraphKind.LYRICS: 6,
    GraphKind.PREFILL: 6,
    GraphKind.STEP: 7,
}


def _builder(config: JukeboxConfig, spec: GraphSpec, precision: Precision) -> partial[VQVAE | Prior]:
    return partial(build_model, config, spec.model_level, precision)


def _trace_to_bytes(config: JukeboxConfig, specs: Sequence[GraphSpec], precision: Precision) -> list[bytes]:
    models = trace_together([(spec, _builder(config, spec, precision)) for spec in specs])
    return [ir.to_proto(model).SerializeToString() for model in models]


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model
