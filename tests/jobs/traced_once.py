"""Most of an export's time is tracing, which knows nothing of how weights are stored: for tests that export alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir
import pytest

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.export.parallel import TraceRequest, trace_all
from jukebox_deploy.jobs import export_job


@contextmanager
def traced_once() -> Iterator[None]:
    """Exports within this context trace graphs of the same tables and precision once."""
    traced: dict[Hashable, list[bytes]] = {}

    def trace_once(request: TraceRequest, processes: int | None) -> Iterator[tuple[GraphSpec, ir.Model]]:
        key = (request.config, request.precision, *request.specs)
        if key not in traced:
            made = trace_all(request, processes)
            traced[key] = [ir.to_proto(model).SerializeToString() for _, model in made]
        for spec, data in zip(request.specs, traced[key], strict=True):
            yield spec, ir.from_proto(onnx.ModelProto.FromString(data))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_job, "trace_all", trace_once)
        yield
