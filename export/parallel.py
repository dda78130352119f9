"""Tracing is single-threaded Python: several graphs are traced in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import onnx
import onnx_ir as ir

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision
from jukebox_deploy.errors import ExportError
from jukebox_deploy.export.tracing import trace
from jukebox_deploy.models.builders import build_model
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.vqvae import VQVAE


def trace_all(
    config: JukeboxConfig, specs: Sequence[GraphSpec], precision: Precision, processes: int | None = None
) -> Iterator[tuple[GraphSpec, ir.Model]]:
    """Trace graphs, in order, in so many processes; without a number one per core, at most one per two graphs.

    Graphs that differ in their weights alone, as those of two like upsamplers, are traced once.
    Raises `ExportError` as `trace` does.
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
    arguments = ([config] * len(specs), specs, [precision] * len(specs))
    if processes == 1:
        yield from map(_trace_to_bytes, *arguments)
        return
    # A forked torch may hang in its thread pools; a spawned one starts clean.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_trace_to_bytes, *arguments)
        except BrokenProcessPool as error:
            raise ExportError(
                "a process that traces graphs ended: memory ran out, or the calling script does work when it is "
                'imported (put it under `if __name__ == "__main__":`). One process is enough: --processes 1.'
            ) from error


def _builder(config: JukeboxConfig, spec: GraphSpec, precision: Precision) -> partial[VQVAE | Prior]:
    return partial(build_model, config, spec.model_level, precision)


def _trace_to_bytes(config: JukeboxConfig, spec: GraphSpec, precision: Precision) -> bytes:
    model = trace(spec, _builder(config, spec, precision))
    data: bytes = ir.to_proto(model).SerializeToString()
    return data


def _parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model
