"""The contract of prior sessions and stateless graphs, the same for every backend."""

from __future__ import annotations

import numpy as np
import pytest

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engine import Engine, PriorSession
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.eager.engine import EagerEngine
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.memory import DeviceMemory
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine
from jukebox_deploy.errors import EngineError
from tests.engines import fake_tensorrt, handmade_prior
from tests.engines.handmade_prior import HEADS, LENGTH, WIDTH

TENSORRT = (Target.TENSORRT, Target.TENSORRT_RTX)
KEYS = (HEADS, LENGTH, WIDTH)
QUERY = (HEADS, 1, WIDTH)


@pytest.fixture(scope="module")
def graph_folder(tmp_path_factory):
    return handmade_prior.save(tmp_path_factory.mktemp("handmade") / "bundle").folder


class DeviceEngine(OnnxRuntimeEngine):
    """ONNX Runtime with the buffers of a device, on the one device that every machine has."""

    def _memory(self):
        import onnxruntime

        return DeviceMemory(onnxruntime, ("cpu", 0))


def pretended_engine(graph_folder, target) -> TensorRtEngine:
    """TensorRT as far as a machine without a GPU can have it."""
    folder = graph_folder.parent / str(target)
    if not folder.exists():
        fake_tensorrt.save_engines(open_bundle(graph_folder), folder, target)
    return TensorRtEngine(open_bundle(folder), fake_tensorrt.platform(target))


@pytest.fixture(params=["eager", "onnxruntime", "onnxruntime on a device", *TENSORRT])
def engine(request, graph_folder) -> Engine:
    if request.param == "eager":
        return handmade_prior.eager_engine()
    pytest.importorskip("onnxruntime")
    if request.param in TENSORRT:
        return pretended_engine(graph_folder, request.param)
    engine = handmade_prior.onnx_engine(graph_folder)
    if request.param == "onnxruntime":
        return engine
    return DeviceEngine(engine.config, engine.graphs, engine._files)


def random(shape, seed=0):
    """Values of such a size that a softmax over their products stays flat."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 8


def fill(session: PriorSession, slot: int, song: int, position: int = 3) -> None:
    """Put a song into a slot; what it is depends on its number alone."""
    session.write("position", slot, np.asarray(position))
    session.write("query", slot, random(QUERY, seed=song))
    session.write("key_0", slot, random(KEYS, seed=100 + song))


def state_of(session: PriorSession, slot: int) -> list[np.ndarray]:
    return [session.read(name, slot) for name in ("position", "query", "key_0", "result")]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_written_is_read(engine):
    session = engine.prior_session(0, 3)
    for slot in range(3):
        fill(session, slot, song=slot, position=slot)
    for slot in range(3):
        assert session.read("position", slot) == slot
        np.testing.assert_array_equal(session.read("query", slot), random(QUERY, seed=slot))
        np.testing.assert_array_equal(session.read("key_0", slot), random(KEYS, seed=100 + slot))


def test_buffers_begin_as_zeros(engine):
    session = engine.prior_session(0, 2)
    assert all(not value.any() for value in state_of(session, 1))


def test_a_value_that_was_read_or_written_is_a_copy(engine):
    session = engine.prior_session(0, 1)
    fill(session, 0, song=1)
    value = random(QUERY, seed=7)
    session.write("query", 0, value)
    value[:] = 0
    session.read("query", 0)[:] = 0
    np.testing.assert_array_equal(session.read("query", 0), random(QUERY, seed=7))


@pytest.mark.parametrize(
    ("tensor", "slot", "value", "said"),
    [
        ("query", 0, random((HEADS, 2, WIDTH)), "expected float32"),
        ("query", 0, random((1, *QUERY)), "expected float32"),
        ("query", 0, random(QUERY).astype(np.float64), "float64"),
        ("position", 0, np.asarray(1, np.int32), "int32"),
        ("query", 2, random(QUERY), "no slot 2"),
        ("query", -1, random(QUERY), "no slot -1"),
        ("keys", 0, random(KEYS), "no tensor keys"),
    ],
)
def test_what_does_not_fit_is_refused(engine, tensor, slot, value, said):
    session = engine.prior_session(0, 2)
    with pytest.raises(EngineError, match=said):
        session.write(tensor, slot, value)


def test_reading_what_is_not_there_is_refused(engine):
    session = engine.prior_session(0, 2)
    with pytest.raises(EngineError, match="no slot 2"):
        session.read("query", 2)
    with pytest.raises(EngineError, match="no tensor past_key_0"):
        session.read("past_key_0", 0)


@pytest.mark.parametrize("slots", [range(0, 0), range(1, 4), range(-1, 1), range(0, 3, 2), range(2, 0, -1)])
def test_a_prefill_of_other_slots_is_refused(engine, slots):
    session = engine.prior_session(0, 3)
    with pytest.raises(EngineError, match="not a range of consecutive slots; there are 3"):
        session.prefill(slots)


def test_a_negative_number_of_steps_is_refused(engine):
    with pytest.raises(EngineError, match="-1 steps"):
        engine.prior_session(0, 1).step(-1)


@pytest.mark.parametrize("slots", [0, 5])
def test_a_number_of_slots_that_the_engine_was_not_made_for_is_refused(engine, slots):
    with pytest.raises(EngineError, match=f"{slots} slots asked for.*1 to 4"):
        engine.prior_session(0, slots)


def test_a_graph_that_is_not_there_is_named(engine):
    with pytest.raises(EngineError, match="step_1"):
        engine.prior_session(1, 1)
    with pytest.raises(EngineError, match="lyrics_0"):
        engine.runner(GraphKind.LYRICS, 0)


def test_a_graph_with_states_is_no_stateless_graph(engine):
    with pytest.raises(EngineError, match="step_0 has states"):
        engine.runner(GraphKind.STEP, 0)


def test_a_stateless_graph_checks_what_it_is_fed(engine):
    runner = engine.runner(GraphKind.VQVAE_DECODE, 0)
    assert runner({"codes": np.zeros((1, 5), np.int64)})["audio"].shape == (1, 1, 10)
    with pytest.raises(EngineError, match="int32"):
        runner({"codes": np.zeros((1, 5), np.int32)})
    with pytest.raises(EngineError, match="missing"):
        runner({})


def test_steps_are_those_of_the_formula(engine):
    session = engine.prior_session(0, 2)
    for slot in (0, 1):
        fill(session, slot, song=slot, position=3 + slot)
    session.step(2)
    for slot in (0, 1):
        keys, query = random(KEYS, seed=100 + slot), random(QUERY, seed=slot)
        keys[:, 3 + slot : 5 + slot] = query  # two steps with the same query
        scores = np.exp(query @ keys.transpose(0, 2, 1))
        expected = scores / scores.sum(-1, keepdims=True) @ keys @ handmade_prior.WEIGHT
        np.testing.assert_array_equal(session.read("key_0", slot), keys)
        np.testing.assert_allclose(session.read("result", slot), expected, rtol=1e-4, atol=1e-5)
        assert session.read("position", slot) == 5 + slot


def test_steps_at_once_are_steps_one_by_one(engine):
    states = []
    for counts in ((3,), (1, 1, 1), (2, 0, 1)):
        session = engine.prior_session(0, 2)
        for slot in (0, 1):
            fill(session, slot, song=slot)
        for count in counts:
            session.step(count)
        states.append(state_of(session, 0) + state_of(session, 1))
    assert_same(states[0], states[1])
    assert_same(states[0], states[2])


def test_a_state_written_between_steps_is_the_one_that_is_read(engine):
    """States that are not in place have two buffers; after one step it is the other one's turn."""
    session = engine.prior_session(0, 1)
    fill(session, 0, song=0, position=3)
    session.step(1)
    session.write("position", 0, np.asarray(20))
    session.step(1)
    assert session.read("position", 0) == 21
    np.testing.assert_array_equal(session.read("key_0", 0)[:, 20], random(QUERY)[:, 0])


@pytest.mark.parametrize("slots", [range(1), range(1, 3), range(3)])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_prefill_leaves_other_slots_alone(engine, slots, steps_before):
    session = engine.prior_session(0, 3)
    for slot in range(3):
        fill(session, slot, song=slot, position=4 * slot)
    session.step(steps_before)
    before = [state_of(session, slot) for slot in range(3)]
    session.prefill(slots)
    for slot in range(3):
        position, _, keys, _ = before[slot]
        if slot in slots:
            keys[:, position : position + 2] = random(QUERY, seed=slot)
            before[slot][0] = position + 2
        assert_same(before[slot][:3], state_of(session, slot)[:3])
    session.step(1)
    assert [session.read("position", s) - before[s][0] for s in range(3)] == [1, 1, 1]


def test_prefills_of_the_same_slots_go_on(engine):
    session = engine.prior_session(0, 2)
    for slot in (0, 1):
        fill(session, slot, song=slot, position=0)
    for _ in range(3):
        session.prefill(range(1, 2))
    np.testing.assert_array_equal([session.read("position", slot) for slot in (0, 1)], [0, 6])


@pytest.mark.parametrize("slots", [2, 3, 4])
def test_a_song_comes_out_the_same_in_every_slot(engine, slots):
    """Bit for bit on ONNX Runtime; PyTorch's matrix products depend on the row a little."""
    results = []
    for place in range(slots):
        session = engine.prior_session(0, slots)
        for slot in range(slots):
            fill(session, slot, song=0 if slot == place else 1 + slot, position=5)
        session.prefill(range(slots))
        session.step(3)
        results.append(state_of(session, place))
    tolerance = 1e-6 if isinstance(engine, EagerEngine) else 0
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_allclose(first, second, rtol=0, atol=tolerance)


def test_a_slot_does_not_see_its_neighbours(engine):
    results = []
    for neighbour in (1, 2):
        session = engine.prior_session(0, 2)
        fill(session, 0, song=0)
        fill(session, 1, song=neighbour, position=neighbour)
        session.step(2)
        results.append(state_of(session, 0))
    assert_same(*results)


def test_engines_are_context_managers(engine):
    with engine as opened:
        assert opened is engine
