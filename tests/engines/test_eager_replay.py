"""Recorded steps of PyTorch, on a processor: a pretended recorder keeps the work and does it when it is replayed.

That nothing in a step is beyond a CUDA graph shows on PyTorch's device without memory: whatever leaves it, looks
at a number, or makes a tensor elsewhere, could not be recorded on a GPU either.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.engine import PriorSession
from jukebox_deploy.engines.eager.engine import EagerEngine
from jukebox_deploy.engines.eager.replay import TorchRecording, WatchedTensor, _cause
from jukebox_deploy.engines.replay import Recorder, Work
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.models.builders import build_model
from jukebox_deploy.presets import preset
from tests.engines import handmade_prior
from tests.gpu import suite


@dataclass
class PretendedRecording:
    work: Work
    replay_it: Callable[[Work], None]
    replays: int = 0
    released: bool = False

    def replay(self) -> None:
        assert not self.released
        self.replays += 1
        self.replay_it(self.work)

    def release(self) -> None:
        self.released = True


@dataclass
class Pretended:
    """Recordings are told of here."""

    replay_it: Callable[[Work], None] = lambda work: work()
    recordings: list[PretendedRecording] = field(default_factory=list)

    def record(self, work: Work) -> PretendedRecording:
        self.recordings.append(PretendedRecording(work, self.replay_it))
        return self.recordings[-1]

    def recorder(self) -> Recorder:
        return Recorder(self.record)

    def engine(self) -> EagerEngine:
        """The handmade prior, recorded."""
        engine = handmade_prior.eager_engine()
        engine._recorder = self.recorder()
        return engine


def _fill(session: PriorSession) -> None:
    rng = np.random.default_rng(3)
    for slot in range(session.slots):
        query = session.spec.tensor("query")
        session.write("query", slot, rng.standard_normal(query.shape({"B": 1})[1:], np.float32))
        session.write("position", slot, np.asarray(2 * slot))


def _state(session: PriorSession) -> list[np.ndarray]:
    return [session.read(t.name, slot) for t in session.spec.tensors for slot in range(session.slots)]


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_recorded_steps_are_those_of_plain_ones(steps: int) -> None:
    pretended = Pretended()
    states = []
    for engine in (handmade_prior.eager_engine(), pretended.engine()):
        session = engine.prior_session(0, 3)
        _fill(session)
        session.prefill(range(1, 3))
        session.step(steps)
        states.append(_state(session))
    for plain, recorded in zip(*states, strict=True):
        np.testing.assert_array_equal(plain, recorded)
    assert [recording.replays for recording in pretended.recordings] == [steps]


def test_what_is_written_between_steps_is_seen_by_the_recording() -> None:
    session = Pretended().engine().prior_session(0, 2)
    _fill(session)
    session.step(2)
    session.write("position", 1, np.asarray(9))
    session.step(1)
    assert [int(session.read("position", slot)) for slot in range(2)] == [3, 10]


def test_codes_of_a_prior_are_the_same(tiny_checkpoint: CheckpointBundle) -> None:
    graphs = declare_graphs(tiny_checkpoint.config, GraphOptions(logits=True))
    pretended = Pretended()
    plain, recorded = eager_engine(tiny_checkpoint, graphs), eager_engine(tiny_checkpoint, graphs)
    recorded._recorder = pretended.recorder()
    suite.check_chosen_codes(plain, recorded, 0)
    suite.check_given_codes(plain, recorded, 0)
    assert len(pretended.recordings) == 3  # one for each session


def _do_nothing(work: Work) -> None:
    """A recording that is empty."""


def _do_twice(work: Work) -> None:
    work()
    work()


def test_a_replay_that_does_nothing_is_refused() -> None:
    session = Pretended(_do_nothing).engine().prior_session(0, 1)
    _fill(session)
    with pytest.raises(
        EngineError, match=r"step_0: a step replayed .* gives other values of .*Run without: --no-cuda-graph"
    ):
        session.step(1)


def test_a_replay_that_does_it_twice_is_refused() -> None:
    pretended = Pretended(_do_twice)
    session = pretended.engine().prior_session(0, 1)
    _fill(session)
    with pytest.raises(EngineError, match="gives other values of position than the step itself"):
        session.step(1)
    assert pretended.recordings[0].released


def test_a_step_that_cannot_be_recorded_says_how_to_do_without() -> None:
    def refuse(work: Work) -> PretendedRecording:
        raise EngineError("operation not permitted when stream is capturing.")

    engine = handmade_prior.eager_engine()
    engine._recorder = Recorder(refuse)
    session = engine.prior_session(0, 1)
    with pytest.raises(EngineError, match=r"cannot be recorded as a CUDA graph: operation not .*: --no-cuda-graph"):
        session.step(1)


def test_a_session_and_its_recording_go_when_nobody_holds_them() -> None:
    """No cycle may keep the memory of a GPU until Python looks for cycles."""
    pretended = Pretended()
    session = pretended.engine().prior_session(0, 2)
    _fill(session)
    session.step(2)
    kept: list[Callable[[], object]] = [weakref.ref(session), weakref.ref(session._tensors["key_0"])]
    pretended.recordings.clear()
    gc.disable()
    try:
        del session
        assert [reference() for reference in kept] == [None, None]
    finally:
        gc.enable()


def test_nothing_is_collected_during_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of other sessions would wait for the device, or free its memory: that ends a recording."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    collected: list[bool] = []
    TorchRecording(lambda: collected.append(gc.isenabled()))
    assert collected == [False]
    assert gc.isenabled()


def test_a_recording_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(EngineError):
        TorchRecording(lambda: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_a_watched_tensor_is_wiped_and_brought_back(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    watched = WatchedTensor("x", True, tensor[1:])
    before = watched.read()
    watched.wipe()
    assert (tensor[1:].view(torch.uint8) == 0xFF).all()
    watched.write(before)
    assert torch.equal(tensor, torch.tensor([[0, 1], [1, 0]]).to(dtype))


class _Elsewhere(TorchDispatchMode):
    """Gathers what has tensors that are not on the device without memory."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors):
            self.found.add(str(func))
        return result


@pytest.fixture
def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the device without memory knows nothing."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)


def _all_of_tiny() -> Iterator[tuple[JukeboxConfig, Precision, str]]:
    for precision in (Precision.FP32, Precision.FP16, Precision.BF16):
        for name in declare_graphs(preset("tiny"), GraphOptions()):
            yield preset("tiny"), precision, name


CASES = [
    *_all_of_tiny(),
    *((preset("1b_lyrics"), Precision.FP16, name) for name in ("step_2", "prefill_2", "step_0", "prefill_0")),
    *((preset("5b_lyrics"), Precision.FP16, name) for name in ("step_2", "prefill_2", "lyrics_2")),
]


@pytest.mark.usefixtures("without_autocast")
@pytest.mark.parametrize(
    ("config", "precision", "graph"), [pytest.param(*case, id=f"{case[0].name} {case[1]} {case[2]}") for case in CASES]
)
def test_nothing_in_a_graph_leaves_its_device(config: JukeboxConfig, precision: Precision, graph: str) -> None:
    spec = declare_graphs(config, GraphOptions(precision, logits=True))[graph]
    with torch.device("meta"):
        module = graph_module(spec, build_model(config, spec.model_level, precision))
        sizes = {r.symbol: r.optimum for r in spec.ranges}
        inputs = [torch.zeros(t.shape(sizes), dtype=getattr(torch, t.dtype)) for t in spec.inputs]
    with torch.inference_mode(), _Elsewhere() as elsewhere:
        module(*inputs)
    assert elsewhere.found == set()


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x + torch.arange(4),
        lambda x: x[x > 0],
        lambda x: x + torch.tensor(2.0).to("meta"),
    ],
    ids=["a number", "a copy", "a tensor of the processor", "a size that depends on numbers", "a constant"],
)
def test_what_leaves_its_device_is_noticed(leave: Callable[[Tensor], object]) -> None:
    elsewhere = _Elsewhere()
    try:
        with elsewhere:
            leave(torch.zeros(4, device="meta"))
    except (RuntimeError, NotImplementedError):
        return
    assert elsewhere.found


def test_a_failed_recording_names_what_failed_first() -> None:
    """PyTorch raises a second time when it ends the recording; what has no words has a name."""

    def fail(first: Exception) -> BaseException:
        try:
            try:
                raise first
            finally:
                raise RuntimeError("something failed before")
        except RuntimeError as error:
            return error

    assert _cause(fail(ValueError("not permitted.\nCompile with …"))) == "not permitted"
    assert _cause(fail(KeyError())) == "KeyError"
