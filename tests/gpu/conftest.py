"""What the tests on a GPU share, the table at their end, and the file that they leave: `make gpu-test`."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.results import BackendChecks, BenchmarkRun
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.cuda_device import CudaDevice
from jukebox_deploy.engines.device import DeviceProperties, NoDeviceError
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from tests.gpu.backends import Material
from tests.gpu.outcomes import Outcomes

_OUTCOMES = pytest.StashKey[Outcomes]()
_RUN = pytest.StashKey[BenchmarkRun]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu-results", metavar="DIR", help="Write what was found on a GPU to a file in this folder.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = Outcomes()


@pytest.fixture(scope="session")
def gpu(request: pytest.FixtureRequest) -> DeviceProperties:
    """The GPU, or a skip that says why there is none."""
    try:
        properties = CudaDevice().properties
    except NoDeviceError as error:
        pytest.skip(str(error))
    request.config.stash[_OUTCOMES].gpu = properties.name
    return properties


@pytest.fixture(scope="session")
def used_bytes(gpu: DeviceProperties) -> Iterator[object]:
    """How many bytes of the GPU are used, by whomever."""
    device = CudaDevice()

    def used() -> int:
        _give_back_what_pytorch_keeps()
        return gpu.memory_bytes - device.free_bytes()

    yield used
    device.close()


def _give_back_what_pytorch_keeps() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def material(
    gpu: DeviceProperties, tiny_checkpoint: CheckpointBundle, tmp_path_factory: pytest.TempPathFactory
) -> Material:
    """`tiny` in fp32 with logits, all levels."""
    folder = tmp_path_factory.mktemp("gpu")
    request = ExportRequest(GraphOptions(logits=True), tensorrt=TensorRtCheck.NEVER)
    export_bundle(tiny_checkpoint, folder / "onnx", request)
    return Material(tiny_checkpoint, open_bundle(folder / "onnx"), folder, gpu.compute_capability)


@pytest.fixture(scope="session")
def keep_run(request: pytest.FixtureRequest) -> object:
    """Keeps the benchmark for the file."""

    def keep(run: BenchmarkRun) -> None:
        request.config.stash[_RUN] = run

    return keep


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if item.get_closest_marker("gpu"):
        callspec = getattr(item, "callspec", None)
        backend = callspec.params["backend"] if callspec else "benchmark"
        item.config.stash[_OUTCOMES].note(backend, outcome.get_result())  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of backends, or why nothing was run; and the benchmark."""
    outcomes = config.stash[_OUTCOMES]
    for line in outcomes.lines():
        terminalreporter.write_line(line)
    if (run := config.stash.get(_RUN, None)) is not None:
        from jukebox_deploy.cli.bench_table import print_run

        print_run(run)
    if (folder := config.getoption("--gpu-results")) and outcomes.gpu:
        terminalreporter.write_line(f"written to {_write(Path(folder), outcomes.gpu, run, outcomes.checks())}")


def _write(folder: Path, gpu: str, run: BenchmarkRun | None, checks: tuple[BackendChecks, ...]) -> Path:
    """The benchmark, if there was one, with what the suite found."""
    from jukebox_deploy.benchmarks.machine import describe_this_machine

    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    # CUDA may be of no use any more by now.
    run = run or BenchmarkRun("make gpu-test", date, replace(describe_this_machine(), gpu=gpu))
    path = folder / f"{date[:10]}-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}.json"
    replace(run, checks=checks).save(path)
    return path
