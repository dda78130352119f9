"""What tests of several packages need: one tiny model, imported and exported once per test session."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.openai import import_openai
from jukebox_deploy.checkpoints.random_bundle import write_random_openai_checkpoint
from jukebox_deploy.config import LabelRules
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.labels.vocabulary import NameLists, Vocabulary

TINY_VOCABULARY = Vocabulary(
    {LabelRules.NAMES: NameLists({"unknown": 0, "the tin foxes": 1, "glass harbour": 2}, {"unknown": 0, "folk": 1})}
)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts programs in the background like this
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests of interrupted runs could not bear


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test session, one for all worker processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(shared_folder: Path) -> CheckpointBundle:
    """`tiny` with random weights and a few names, imported from files in OpenAI's layout. Not to be changed."""
    bundle = shared_folder / "tiny_checkpoint"
    with (shared_folder / "tiny_checkpoint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first worker makes it, the others wait for it
        if not bundle.exists():
            files = write_random_openai_checkpoint("tiny", shared_folder / "tiny_openai")
            import_openai(files, "tiny", bundle, TINY_VOCABULARY)
    return CheckpointBundle.open(bundle)


@pytest.fixture(scope="session")
def tiny_engine_bundle(tiny_checkpoint: CheckpointBundle, shared_folder: Path) -> EngineBundle:
    """The ONNX graphs of `tiny_checkpoint`, fp32, all levels. Not to be changed.

    Every graph has been compared with PyTorch, and parsed and built by TensorRT-RTX.
    """
    bundle = shared_folder / "tiny_onnx"
    with (shared_folder / "tiny_onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.exists():
            export_bundle(tiny_checkpoint, bundle, ExportRequest(tensorrt=TensorRtCheck.ALWAYS))
    return open_bundle(bundle)
