"""What the tests on a GPU share, the table at their end, and the file that they leave: `make gpu-test`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.machine import Machine
from jukebox_deploy.benchmarks.results import BenchmarkRun
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.cuda_device import CudaDevice
from jukebox_deploy.engines.device import DeviceProperties, NoDeviceError
from jukebox_deploy.jobs.export_job import export_bundle
from jukebox_deploy.provenance import time_now
from tests.gpu.backends import Case, Material
from tests.gpu.outcomes import Outcomes

_OUTCOMES = pytest.StashKey[Outcomes]()
_RUN = pytest.StashKey[BenchmarkRun]()
_DATE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu-results", metavar="DIR", help="Write what was found on a GPU to a file in this folder.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = Outcomes()
    config.stash[_DATE] = time_now()


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


MakeMaterial = Callable[[Case], Material]


@pytest.fixture(scope="session")
def make_material(
    gpu: DeviceProperties, tiny_checkpoint: CheckpointBundle, tmp_path_factory: pytest.TempPathFactory
) -> MakeMaterial:
    """What all backends run of a case, exported and built once."""

    @functools.cache
    def make(case: Case) -> Material:
        folder = tmp_path_factory.mktemp("gpu")
        export_bundle(tiny_checkpoint, folder / "onnx", case.export)
        return Material(tiny_checkpoint, open_bundle(folder / "onnx"), folder, gpu.compute_capability, case.slots)

    return make


@pytest.fixture(scope="session")
def material(make_material: MakeMaterial) -> Material:
    """`tiny` in fp32, all levels."""
    return make_material(Case())


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
        report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
        outcomes = item.config.stash[_OUTCOMES]
        outcomes.note(_backend(item), report)
        if report.when == "setup" and report.passed:
            outcomes.begin(_backend(item), item.nodeid)
        if outcomes.gpu and report.when != "teardown":
            _keep(item.config)  # a library that crashes takes the process with it, but not what was found before


def _backend(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params["backend"]) if callspec else "benchmark"


def _keep(config: pytest.Config) -> Path | None:
    """What was found so far, in a file, if one is wanted."""
    outcomes, folder = config.stash[_OUTCOMES], config.getoption("--gpu-results")
    if not folder or not outcomes.gpu:
        return None
    run = config.stash.get(_RUN, None) or BenchmarkRun("make gpu-test", config.stash[_DATE], _machine(outcomes.gpu))
    return write(Path(folder), replace(run, checks=outcomes.checks()), outcomes.gpu)


@functools.cache
def _machine(gpu: str) -> Machine:
    from jukebox_deploy.benchmarks.machine import describe_this_machine

    return replace(describe_this_machine(), gpu=gpu)  # CUDA may be of no use any more by now


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of backends, or why nothing was run; and the benchmark."""
    outcomes = config.stash[_OUTCOMES]
    for line in outcomes.lines():
        terminalreporter.write_line(line)
    if (run := config.stash.get(_RUN, None)) is not None:
        from jukebox_deploy.cli.bench_table import print_run

        print_run(run)
    if (path := _keep(config)) is not None:
        terminalreporter.write_line(f"written to {path}")


def write(folder: Path, run: BenchmarkRun, gpu: str) -> Path:
    """Write what the suite found, and the benchmark if there was one; a second run of a day gets a file of its own."""
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    path = folder / f"{run.date[:10]}-{name}.json"
    if path.exists() and BenchmarkRun.load(path).date != run.date:
        path = folder / f"{run.date[:19].replace(':', '-')}-{name}.json"
    run.save(path)
    return path
