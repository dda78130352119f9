"""The suite for GPUs, tried without one: on ONNX Runtime, on a pretended GPU, and on engines that are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import pytest

from jukebox_deploy.engine import Engine
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.eager.engine import EagerEngine, EagerSession
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine
from jukebox_deploy.jobs.export_job import export_bundle
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.damaged_bundles import with_flipped_weight
from tests.engines import fake_tensorrt
from tests.engines.host_device import HostDevice
from tests.gpu import suite
from tests.gpu.backends import CASES

LEVEL = 0
GRAPHS = ("vqvae_decode_0", "condition_0", "prefill_0", "step_0")


@pytest.fixture(scope="module")
def bundle(tiny_engine_bundle):
    return tiny_engine_bundle


@pytest.fixture(scope="module")
def model(bundle, tiny_checkpoint) -> Engine:
    return eager_engine(tiny_checkpoint, bundle.graphs)


@dataclass
class Tried:
    engine: Engine
    device: HostDevice

    def used_bytes(self) -> int:
        return self.device.used


@pytest.fixture(params=["onnxruntime", "pretended GPU"])
def tried(request, bundle, tmp_path) -> Tried:
    device = HostDevice()
    if request.param == "onnxruntime":
        return Tried(onnx_engine(bundle), device)
    engines = fake_tensorrt.save_engines(bundle, tmp_path / "engines")
    return Tried(TensorRtEngine(engines, fake_tensorrt.platform(engines.manifest.target, device)), device)


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs(tried, model, graph):
    suite.check_graph(model, tried.engine, tried.engine.graphs[graph])


def test_given_codes(tried, model):
    suite.check_given_codes(model, tried.engine, LEVEL)


@pytest.mark.parametrize(
    "case", ["int8", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "int8")]
)
def test_every_case_is_exported_and_agrees_on_a_processor(tiny_checkpoint, tmp_path, case):
    export_bundle(tiny_checkpoint, tmp_path / "onnx", CASES[case].export)
    report = verify_bundle(open_bundle(tmp_path / "onnx"), tiny_checkpoint)
    report.require()
    assert report.outcomes["passed"] > 2


def test_every_number_of_slots(tried, model):
    suite.check_every_number_of_slots(model, tried.engine, LEVEL)


def test_chosen_codes(tried, model):
    suite.check_chosen_codes(model, tried.engine, LEVEL)


@pytest.mark.parametrize("level", [0, 2])
def test_no_drawn_code_is_decided_by_rounding(model, level):
    """Or a GPU that computes well would fail."""
    assert suite.closest_draw(model, level) > suite.CLEAR


def test_a_whole_window(tried):
    suite.check_whole_window(tried.engine, LEVEL, 2, tried.used_bytes)


def test_sessions_come_and_go(tried):
    suite.check_sessions_come_and_go(tried.engine, LEVEL, tried.used_bytes)


def test_slots_are_independent(tried):
    suite.check_slots_are_independent(tried.engine, LEVEL)


def test_a_window_is_conditioned_by_the_same_bits_every_time(tried):
    specs = suite.graphs_that_condition(tried.engine)
    assert [spec.name for spec in specs] == ["condition_0", "condition_1", "condition_2"]
    for spec in specs:
        suite.check_same_bits(tried.engine, spec)


def test_bits_that_differ_between_sessions_are_noticed(bundle, monkeypatch):
    engine = onnx_engine(bundle)
    opened, sessions = engine.runner, count()

    def rounded_differently(kind, level):
        runner, number = opened(kind, level), next(sessions)
        return lambda feeds: {name: values * np.float32(1 + number * 2**-22) for name, values in runner(feeds).items()}

    monkeypatch.setattr(engine, "runner", rounded_differently)
    with pytest.raises(AssertionError, match="condition_0: start differs"):
        suite.check_same_bits(engine, engine.graphs["condition_0"])


@pytest.mark.parametrize("level", [2, 1])
def test_songs_go_on(tried, tmp_path, level):
    suite.check_songs_go_on(tried.engine, level, tmp_path)


class WarmerTogether(EagerEngine):
    """The more slots, the higher their temperature: what kernels do to the last bits, large enough to be seen."""

    def prior_session(self, level: int, slots: int) -> EagerSession:
        session = super().prior_session(level, slots)
        write = session.write

        def warmer(tensor: str, slot: int, value: np.ndarray) -> None:
            write(tensor, slot, value * np.float32(1 + slots / 50) if tensor == "temperature" else value)

        session.write = warmer  # type: ignore[method-assign]
        return session


def test_songs_go_on_where_numbers_depend_on_the_batch(bundle, tiny_checkpoint, tmp_path):
    """And an engine that says that they do not is found out."""
    model = eager_engine(tiny_checkpoint, bundle.graphs)
    engine = WarmerTogether(model.config, model.graphs, model._opener)
    suite.check_songs_go_on(engine, 2, tmp_path / "right")
    engine.batch_invariant = True
    with pytest.raises(AssertionError, match="Mismatched elements"):
        suite.check_songs_go_on(engine, 2, tmp_path / "wrong")


def test_memory_that_grows_is_noticed(bundle):
    growing = count(step=2 * suite.SLACK)
    with pytest.raises(AssertionError):
        suite.check_whole_window(onnx_engine(bundle), LEVEL, 1, lambda: next(growing))
    with pytest.raises(AssertionError):
        suite.check_sessions_come_and_go(onnx_engine(bundle), LEVEL, lambda: next(growing))


def test_a_wrong_weight_is_noticed(bundle, model, tmp_path):
    tensor = "core.transformer.layers.1.mlp.expand.weight"
    wrong = onnx_engine(with_flipped_weight(bundle, tmp_path / "wrong", "step_0", tensor))
    for check in (suite.check_given_codes, suite.check_chosen_codes):
        with pytest.raises(AssertionError):
            check(model, wrong, LEVEL)
    with pytest.raises(AssertionError):
        suite.check_graph(model, wrong, bundle.graphs["step_0"])


def test_slots_that_see_each_other_are_noticed(bundle, monkeypatch):
    engine = onnx_engine(bundle)
    opened = engine.prior_session

    def mixing(level, slots):
        session = opened(level, slots)
        write = session.write

        def write_to_neighbour_too(tensor, slot, value):
            write(tensor, slot, value)
            if tensor == "uniform":
                write(tensor, (slot + 1) % slots, value)

        monkeypatch.setattr(session, "write", write_to_neighbour_too)
        return session

    monkeypatch.setattr(engine, "prior_session", mixing)
    with pytest.raises(AssertionError):
        suite.check_slots_are_independent(engine, LEVEL)
