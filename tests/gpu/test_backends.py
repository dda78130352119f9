"""Every backend of this machine on its GPU, through one suite, then a short benchmark. `make gpu-test` runs this."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.machine import describe_this_machine
from jukebox_deploy.benchmarks.measurement import measure
from jukebox_deploy.benchmarks.plan import BenchmarkPlan
from jukebox_deploy.benchmarks.preset_bundles import prepare_bundles, system_to_measure
from jukebox_deploy.benchmarks.results import BenchmarkRun
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.cuda_device import CudaDevice
from jukebox_deploy.engines.device import DeviceProperties, Provider
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.verification.ladder import VerifyRequest
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.gpu import suite
from tests.gpu.backends import BACKENDS, CASES, UPSAMPLER, Case, Material, NotHereError
from tests.gpu.conftest import MakeMaterial
from tests.gpu.outcomes import AGREEMENT, agreement_of

pytestmark = pytest.mark.gpu

LEVELS = (0, 2)
UsedBytes = Callable[[], int]
RecordProperty = Callable[[str, object], None]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def require_cuda() -> None:
    """Skip what comes after a test that has broken CUDA for the process."""
    try:
        CudaDevice().synchronize()
    except EngineError as error:
        pytest.skip(f"an earlier test has left CUDA unusable in this process: {error}")


@pytest.fixture
def engine(backend: str, material: Material) -> Engine:
    require_cuda()
    try:
        return BACKENDS[backend](material)
    except NotHereError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def model(material: Material) -> Engine:
    """PyTorch on the processor."""
    return eager_engine(material.checkpoint, material.onnx.graphs)


def test_every_graph_computes_what_pytorch_computes(engine: Engine, model: Engine) -> None:
    with engine:
        for spec in engine.graphs.values():
            suite.check_graph(model, engine, spec)


@pytest.mark.parametrize("level", LEVELS)
def test_logits_over_given_codes(engine: Engine, model: Engine, level: int) -> None:
    with engine:
        suite.check_given_codes(model, engine, level)


@pytest.mark.parametrize("level", LEVELS)
def test_codes_are_those_of_pytorch(engine: Engine, model: Engine, level: int) -> None:
    with engine:
        suite.check_chosen_codes(model, engine, level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_whole_window_takes_no_more_memory(engine: Engine, used_bytes: UsedBytes, level: int) -> None:
    with engine:
        suite.check_whole_window(engine, level, 4, used_bytes)


def test_sessions_come_and_go(engine: Engine, used_bytes: UsedBytes) -> None:
    with engine:
        suite.check_sessions_come_and_go(engine, 0, used_bytes)


def test_slots_are_independent(engine: Engine) -> None:
    with engine:
        suite.check_slots_are_independent(engine, 2)


def test_a_window_is_conditioned_by_the_same_bits_every_time(engine: Engine) -> None:
    with engine:
        for spec in suite.graphs_that_condition(engine):
            suite.check_same_bits(engine, spec)


@pytest.mark.parametrize("level", [2, 1])
def test_songs_go_on_as_if_nothing_had_happened(engine: Engine, level: int, tmp_path: Path) -> None:
    with engine:
        suite.check_songs_go_on(engine, level, tmp_path)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["onnxruntime cuda", "tensorrt-rtx", "tensorrt"])
def test_every_arithmetic_agrees_with_pytorch(
    backend: str, case: str, make_material: MakeMaterial, record_property: RecordProperty
) -> None:
    """What `verify` finds, within the tolerances of each precision."""
    require_cuda()
    material = make_material(CASES[case])
    try:
        with BACKENDS[backend](make_material(Case())):  # or the backend is not here
            pass
        if backend.startswith("onnxruntime"):
            report = verify_bundle(material.onnx, material.checkpoint, VerifyRequest(provider="cuda"))
        else:
            report = verify_bundle(material.engines(Target(backend)), material.checkpoint, exported=material.onnx)
    except NotHereError as error:
        pytest.skip(str(error))
    for number in agreement_of(case, report):
        record_property(AGREEMENT, asdict(number))
    report.require()


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "tensorrt"])
def test_profiles_change_with_the_number_of_slots(backend: str, make_material: MakeMaterial) -> None:
    require_cuda()
    material = make_material(Case(slots=(1, 4, 16), graphs=UPSAMPLER))
    try:
        engine = BACKENDS[backend](material)
    except NotHereError as error:
        pytest.skip(str(error))
    with engine:
        suite.check_every_number_of_slots(eager_engine(material.checkpoint, material.onnx.graphs), engine, 1)


def test_a_short_benchmark(gpu: DeviceProperties, tmp_path: Path, keep_run: Callable[[BenchmarkRun], None]) -> None:
    """Steps and prefill of the preset `mid`, all that runs here in turn."""
    import torch

    plan = BenchmarkPlan(baselines=None if torch.cuda.is_available() else (), device=Provider.CUDA)
    checkpoint, (onnx,) = prepare_bundles(
        system_to_measure("mid", plan), plan, [LinearWeights.AS_PRECISION], tmp_path / "bundles"
    )
    material = Material(CheckpointBundle.open(checkpoint), open_bundle(onnx), tmp_path, gpu.compute_capability)
    folders = _runnable(material)
    if not folders:
        if not plan.compared:
            pytest.skip("neither PyTorch nor an engine runs on the GPU here")
        plan, folders = replace(plan, only_baselines=True), [material.onnx.folder]  # which has the tables
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    results = tuple(measure(open_subjects(folders, checkpoint, Provider.CUDA), plan))
    keep_run(BenchmarkRun("make gpu-test", date, describe_this_machine(Provider.CUDA), results))


def _runnable(material: Material) -> list[Path]:
    """The bundles that open on this machine."""
    found = []
    for name, folder in (
        ("onnxruntime cuda", lambda: material.onnx.folder),
        ("tensorrt-rtx", lambda: material.engines(Target.TENSORRT_RTX).folder),
        ("tensorrt", lambda: material.engines(Target.TENSORRT).folder),
    ):
        try:
            with BACKENDS[name](material) as engine:
                engine.prior_session(0, 1)
            found.append(folder())
        except (NotHereError, EngineError):  # the tests of the backend tell of it
            continue
    return found
