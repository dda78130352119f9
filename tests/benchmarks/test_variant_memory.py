"""Peak memory, measured in a process of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.variant_memory import MemoryRequest, peak_memory
from jukebox_deploy.errors import EngineError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's VmHWM")

REQUEST = MemoryRequest(Backend.ONNXRUNTIME, "", None, WorkloadKind.STEP, 0, 1, 1, 2, 1.0, None, mapped=False)


def test_an_engine_needs_less_than_pytorch(tiny_engine_bundle, tiny_checkpoint) -> None:
    """Its process does not even import torch."""
    pytest.importorskip("onnxruntime")
    engine = peak_memory(replace(REQUEST, bundle=str(tiny_engine_bundle.folder)))
    eager = replace(
        REQUEST,
        backend=Backend.EAGER,
        bundle=str(tiny_engine_bundle.folder),
        checkpoint=str(tiny_checkpoint.folder),
    )
    assert 20e6 < engine < peak_memory(eager) < 4e9


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    """In the last words of the other process."""
    with pytest.raises(EngineError, match=r"onnxruntime could not be measured: .*no manifest\.json"):
        peak_memory(replace(REQUEST, bundle=str(tmp_path)))
