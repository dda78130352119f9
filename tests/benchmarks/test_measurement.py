"""The arithmetic of a run on engines whose speed is known, and a run on real ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.benchmarks.measurement import Instruments, measure
from jukebox_deploy.benchmarks.plan import GRAPHS, BenchmarkPlan, plan_stages
from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.variants import Subjects, Variant, _reason_not_to_compile, choose_baselines
from jukebox_deploy.contract import GraphSpec, LinearWeights, Precision
from jukebox_deploy.costs import WeightStorage, step_bytes, weight_bytes
from jukebox_deploy.engines.device import Provider
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.presets import preset
from tests.benchmarks.still_clock import StillClock

TINY = preset("tiny")
PLAN = BenchmarkPlan(level=1, slots=(2,), steps=10, baselines=(Backend.EAGER,))
BLOCK = TINY.prior(1).transformer.block_length


@dataclass
class FakeSession:
    """A session that takes a known time per step and per block."""

    spec: GraphSpec
    slots: int
    clock: StillClock
    step_seconds: float
    values: dict = field(default_factory=dict)
    began: set = field(default_factory=set)

    def write(self, tensor, slot, value):
        assert value.shape == self.spec.tensor(tensor).shape({"B": 1})[1:]
        self.values[tensor, slot] = value

    def read(self, tensor, slot):
        return self.values[tensor, slot]

    def prefill(self, slots):
        assert slots == range(self.slots)
        self._move("prefill", BLOCK, self.step_seconds)

    def step(self, count):
        self._move("step", count, count * self.step_seconds)

    def _move(self, what, positions, seconds):
        self.clock.now += seconds
        for slot in range(self.slots):
            position = self.values["position", slot]
            self.began.add((what, int(position), int(self.values["known_end", slot])))
            self.values["position", slot] = position + positions


class FakeSubjects:
    """An engine that takes 1 s per step or block and 3 s to open, and a baseline that takes 4 s and 5 s."""

    config = TINY
    device = "cpu"

    def __init__(self) -> None:
        self.clock = StillClock()
        self.first = SimpleNamespace(graphs=declare_graphs(TINY), manifest=SimpleNamespace(precision=Precision.FP32))
        self.sessions: list[FakeSession] = []
        self.threads_asked: list[int] = []

    @property
    def engines(self) -> list[Any]:
        return [Variant(Backend.ONNXRUNTIME, Precision.FP32, LinearWeights.INT8, "bundle")]  # type: ignore[arg-type]

    def baseline(self, backend):
        return replace(self.engines[0], backend=backend, weights=LinearWeights.AS_PRECISION, checkpoint="checkpoint")

    def threads(self, variant, graph):
        return 7

    def has_loaded(self, level):
        return False

    def step_bytes(self, variant, level, slots):
        return step_bytes(TINY.prior(level), slots, variant.precision, variant.weights)

    def open(self, variant, threads):
        self.threads_asked.append(threads)
        step, load = (1.0, 3.0) if variant.is_engine else (4.0, 5.0)

        def prior_session(level, slots):
            self.clock.now += load
            self.sessions.append(FakeSession(declare_graphs(TINY)[f"step_{level}"], slots, self.clock, step))
            return self.sessions[-1]

        return SimpleNamespace(config=TINY, graphs=declare_graphs(TINY), prior_session=prior_session)


def run(plan: BenchmarkPlan = PLAN, probes: list[int] | None = None):
    subjects: Any = FakeSubjects()
    asked: list[Any] = []

    def probe(size: int) -> float:
        (probes if probes is not None else []).append(size)
        return 1e9

    def memory(request) -> int:
        asked.append(request)
        return 12345

    instruments = Instruments(subjects.clock, probe, memory)
    return list(measure(subjects, plan, instruments=instruments)), subjects, asked


def test_steps_are_counted_in_codes_of_all_slots() -> None:
    """Two slots, a step a second, or one in four."""
    (step, prefill), _, _ = run()
    assert (step.workload.kind, step.workload.units_per_pass) == (WorkloadKind.STEP, 20)
    assert [variant.units_per_second for variant in step.variants] == [(2.0,) * 5, (0.5,) * 5]
    assert step.variants[0].ratio_over(step.variants[1]).median == 4
    assert step.variants[0].latency.p99 == 1
    assert (prefill.workload.kind, prefill.workload.units_per_pass) == (WorkloadKind.PREFILL, 2 * 2 * BLOCK)
    assert prefill.variants[0].units_per_second == (2.0 * BLOCK,) * 5


def test_loading_and_the_first_call_stand_apart() -> None:
    """Prefill shares what was loaded for the step."""
    (step, prefill), _, _ = run()
    assert [v.load_seconds for v in step.variants] == [3, 5]
    assert [v.load_seconds for v in prefill.variants] == [None, None]
    assert [v.first_seconds for v in step.variants] == [1, 4]
    assert [v.peak_memory_bytes for v in step.variants] == [None, None]


def test_every_round_begins_in_the_middle_of_the_window() -> None:
    """Steps at its middle block, prefill two blocks before."""
    (step, prefill), subjects, _ = run()
    middle = TINY.prior(1).transformer.context // 2
    assert step.workload.position == middle
    assert prefill.workload.position == middle - 2 * BLOCK
    began = subjects.sessions[0].began
    assert ("step", middle, middle) in began
    assert {(p, e) for what, p, e in began if what == "prefill"} == {
        (middle - 2 * BLOCK, middle),
        (middle - BLOCK, middle),
    }


def test_short_passes_are_repeated_and_counted(monkeypatch) -> None:
    """Until a round takes long enough; speeds stay those of the work."""
    monkeypatch.setattr("jukebox_deploy.benchmarks.rounds.ROUND_SECONDS", 25.0)
    (step, prefill), _, _ = run()
    assert [v.units_per_second for v in step.variants] == [(2.0,) * 5, (0.5,) * 5]
    assert [v.calls_per_round for v in step.variants] == [30, 10]
    assert [v.calls_per_round for v in prefill.variants] == [26, 8]
    assert step.workload.units_per_pass == 20


def test_the_bandwidth_is_the_median_of_those_between_the_rounds() -> None:
    """A single probe would be of a moment when another program may have read too."""
    subjects: Any = FakeSubjects()
    found = iter([75e9, 41e9, 44e9, 43e9, 42e9] * 2)
    plan = replace(PLAN, workloads=(WorkloadKind.STEP,), only_baselines=True)
    (step,) = measure(subjects, plan, instruments=Instruments(subjects.clock, lambda size: next(found)))
    limit = step.variants[0].limit
    assert limit is not None
    assert (limit.read_bytes_per_second, limit.rounds[0]) == (43e9, 75e9)


def test_another_position_can_be_chosen() -> None:
    """To see how cost grows within the window."""
    (step, prefill), _, _ = run(replace(PLAN, position=5))
    assert (step.workload.position, prefill.workload.position) == (5, 0)


def test_the_limit_is_that_of_the_variants_own_bytes() -> None:
    """Integer weights are fewer bytes; the memory was read for each number of bytes after every round."""
    probes: list[int] = []
    (step, prefill), _, _ = run(probes=probes)
    prior = TINY.prior(1)
    limits = [variant.limit for variant in step.variants]
    for limit, weights in zip(limits, (LinearWeights.INT8, LinearWeights.AS_PRECISION), strict=True):
        assert limit is not None
        assert limit.step_bytes == step_bytes(prior, 2, Precision.FP32, weights)
        assert limit.weight_bytes + 2 * limit.cache_bytes_per_slot == limit.step_bytes
        assert limit.units_per_second(2) == pytest.approx(2e9 / limit.step_bytes)
        assert limit.rounds == (1e9,) * 5
    assert sorted(probes) == sorted(5 * [limit.step_bytes for limit in limits if limit])
    assert [variant.limit for variant in prefill.variants] == [None, None]


def test_names_and_threads_are_noted() -> None:
    """As they were used."""
    (step, _), subjects, _ = run()
    assert [variant.name for variant in step.variants] == ["onnxruntime fp32, int8 weights", "eager fp32"]
    assert [variant.threads for variant in step.variants] == subjects.threads_asked == [7, 7]
    (step, _), subjects, _ = run(replace(PLAN, threads=3))
    assert [variant.threads for variant in step.variants] == subjects.threads_asked == [3, 3]


def test_peak_memory_is_measured_elsewhere_and_only_if_asked_for() -> None:
    """Each variant in a process of its own."""
    (step, _), _, asked = run(replace(PLAN, memory=True))
    assert [variant.peak_memory_bytes for variant in step.variants] == [12345, 12345]
    assert [(a.backend, a.checkpoint, a.kind) for a in asked] == [
        (Backend.ONNXRUNTIME, None, WorkloadKind.STEP),
        (Backend.EAGER, "checkpoint", WorkloadKind.STEP),
        (Backend.ONNXRUNTIME, None, WorkloadKind.PREFILL),
        (Backend.EAGER, "checkpoint", WorkloadKind.PREFILL),
    ]


def test_too_few_rounds_or_too_many_steps_are_refused() -> None:
    """With what would fit."""
    with pytest.raises(ConfigError, match="4 rounds"):
        BenchmarkPlan(rounds=4)
    with pytest.raises(ConfigError, match="0 steps"):
        BenchmarkPlan(steps=0)
    with pytest.raises(ConfigError, match="0 seconds"):
        BenchmarkPlan(seconds=0)
    with pytest.raises(
        ConfigError, match=r"513 steps from position 512 .* of level 1, which has 1024 positions; give at most 512"
    ):
        run(replace(PLAN, steps=513))
    with pytest.raises(ConfigError, match="position 1024"):
        run(replace(PLAN, position=1024))


def real_subjects(bundle, checkpoint) -> Subjects:
    pytest.importorskip("onnxruntime")
    return Subjects([bundle], checkpoint)


def test_real_engines_do_every_workload_but_songs(tiny_engine_bundle, tiny_checkpoint) -> None:
    """All backends that can; the others are named with a reason."""
    kinds = tuple(kind for kind in WorkloadKind if kind is not WorkloadKind.SONG)
    plan = BenchmarkPlan(kinds, level=1, slots=(1,), steps=2, seconds=0.2)
    results = list(measure(real_subjects(tiny_engine_bundle, tiny_checkpoint), plan, instruments=fast()))
    assert {result.workload.kind for result in results} == set(kinds)
    for result in results:
        backends = {variant.backend for variant in result.variants}
        assert {Backend.ONNXRUNTIME, Backend.EAGER} <= backends
        left_out = " ".join(result.variants[0].notes)
        assert all(backend in backends or backend in left_out for backend in plan.compared)
        for variant in result.variants:
            assert np.all(np.isfinite(variant.units_per_second))
            assert 0 < variant.latency.p50 <= variant.latency.p99
            if result.workload.kind in (WorkloadKind.ENCODE, WorkloadKind.DECODE):  # a round is one call
                assert variant.latency.p50 == pytest.approx(result.workload.units_per_pass / variant.speed.median)


def test_songs_are_made_anew_in_every_round(tiny_engine_bundle, tiny_checkpoint, tmp_path) -> None:
    """Two at once, as short as the model allows; the original's way has one position for all slots."""
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    plan = BenchmarkPlan((WorkloadKind.SONG,), slots=(2,), seconds=1.1)
    (stage,) = plan_stages(subjects.config, subjects.first.graphs, plan, tmp_path)
    baselines, left_out = choose_baselines(subjects, plan.compared, WorkloadKind.SONG, None, slots=2)
    assert [variant.backend for variant in baselines] == [Backend.EAGER_STATIC, Backend.TORCH_COMPILE], left_out
    assert any("one position" in note for note in left_out)
    ((workload, make_task),) = stage.tasks
    assert workload.units_per_pass == 2.2
    task = make_task(stage.open(subjects.open(subjects.engines[0], 1)))
    task.rewind()
    task.run(1)
    assert sorted(path.parent.name for path in tmp_path.rglob("level_0.wav")) == ["0", "1"]
    task.rewind()
    assert not list(tmp_path.rglob("level_0.wav"))


def test_baselines_can_be_measured_alone(tiny_engine_bundle, tiny_checkpoint) -> None:
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    both = (Backend.EAGER, Backend.EAGER_STATIC)
    alone = BenchmarkPlan((WorkloadKind.STEP,), level=1, slots=(1,), steps=1, baselines=both, only_baselines=True)
    (result,) = measure(subjects, alone, instruments=fast())
    assert [variant.backend for variant in result.variants] == [Backend.EAGER, Backend.EAGER_STATIC]
    nobody = replace(alone, baselines=(Backend.EAGER_RECORDED,))
    with pytest.raises(ConfigError, match=r"left to measure in the workload step: eager-recorded .* --device cuda"):
        list(measure(subjects, nobody, instruments=fast()))
    with pytest.raises(ConfigError, match="no baselines are chosen; drop --only-baselines"):
        replace(alone, baselines=())


def test_each_device_has_its_own_baselines(tiny_engine_bundle, tiny_checkpoint, monkeypatch) -> None:
    """A recorded step needs a GPU, `transformers` is set up for a CPU."""
    monkeypatch.setattr("jukebox_deploy.benchmarks.variants._reason_not_to_compile", {"cuda": None}.__getitem__)
    everywhere = (Backend.EAGER, Backend.EAGER_STATIC, Backend.TORCH_COMPILE)
    assert BenchmarkPlan().compared == (*everywhere, Backend.HUGGING_FACE)
    on_gpu = BenchmarkPlan(device=Provider.CUDA)
    assert on_gpu.compared == (Backend.EAGER, Backend.EAGER_STATIC, Backend.EAGER_RECORDED, Backend.TORCH_COMPILE)
    subjects = Subjects([tiny_engine_bundle], tiny_checkpoint, Provider.CUDA)
    prior = subjects.config.prior(1)
    baselines, left_out = choose_baselines(subjects, tuple(Backend)[3:], WorkloadKind.STEP, prior, 1)
    assert [variant.backend for variant in baselines] == list(on_gpu.compared)
    assert left_out == ["hugging-face was not measured: it runs only with --device cpu"]


def test_baselines_whose_steps_alone_differ_take_part_in_steps_alone(tiny_engine_bundle, tiny_checkpoint) -> None:
    """Their prefill would be the same number twice; where both are measured, the reason stands beside it."""
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    kinds = (WorkloadKind.STEP, WorkloadKind.PREFILL)
    compared = (Backend.EAGER_STATIC, Backend.TORCH_COMPILE)
    plan = BenchmarkPlan(kinds, level=1, slots=(1,), steps=1, baselines=compared, only_baselines=True)
    step, prefill = measure(subjects, plan, instruments=fast())
    assert [variant.backend for variant in step.variants] == list(compared)
    assert [variant.backend for variant in prefill.variants] == [Backend.EAGER_STATIC]
    reason = "torch-compile was not measured: only its steps differ from eager-static"
    assert (reason in prefill.variants[0].notes, reason in step.variants[0].notes) == (True, False)
    (only_step,) = measure(subjects, replace(plan, baselines=(Backend.TORCH_COMPILE,)), instruments=fast())
    assert [variant.backend for variant in only_step.variants] == [Backend.TORCH_COMPILE]
    alone = replace(plan, workloads=(WorkloadKind.PREFILL,), baselines=(Backend.TORCH_COMPILE,))
    with pytest.raises(ConfigError, match=f"no variant is left to measure in the workload prefill: {reason}"):
        list(measure(subjects, alone, instruments=fast()))


def test_a_baseline_that_cannot_be_compiled_is_left_out(tiny_engine_bundle, tiny_checkpoint, monkeypatch) -> None:
    def missing(device, error, otherwise):
        raise error(f"no compiler for {device}, {otherwise}.")

    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    _reason_not_to_compile.cache_clear()
    monkeypatch.setattr("jukebox_deploy.models.compilation.require_compilation", missing)
    compared = (Backend.EAGER, Backend.TORCH_COMPILE)
    baselines, left_out = choose_baselines(subjects, compared, WorkloadKind.STEP, subjects.config.prior(1), 1)
    _reason_not_to_compile.cache_clear()
    assert [variant.backend for variant in baselines] == [Backend.EAGER]
    assert left_out == ["torch-compile was not measured: no compiler for cpu, go on without compiling"]


def test_engines_with_mapped_weights_take_part_when_asked(tiny_engine_bundle, tiny_checkpoint, monkeypatch) -> None:
    """Beside those that pack them, if the weights are large; otherwise the reason is said."""
    plan = BenchmarkPlan((WorkloadKind.STEP,), level=1, slots=(1,), steps=1, baselines=(), mapped=True)
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    (small,) = measure(subjects, plan, instruments=fast())
    assert [variant.name for variant in small.variants] == ["onnxruntime fp32"]
    assert any("mapped" in note for note in small.variants[0].notes)
    monkeypatch.setattr("jukebox_deploy.benchmarks.variants.LARGE_WEIGHTS", 0)
    (large,) = measure(subjects, plan, instruments=fast())
    assert [variant.weights for variant in large.variants] == ["fp32", "mapped"]


@pytest.mark.parametrize("kind", [WorkloadKind.ENCODE, WorkloadKind.DECODE])
def test_opening_the_vqvae_counts_as_loading(kind, tmp_path) -> None:
    """And not as part of the first call."""
    opened = []
    engine = SimpleNamespace(config=TINY, runner=lambda *graph: opened.append(graph))
    (stage,) = plan_stages(TINY, declare_graphs(TINY), BenchmarkPlan((kind,), level=1), tmp_path)
    stage.open(engine)
    assert opened == [(GRAPHS[kind], 1)]


def test_baselines_get_the_threads_of_their_own_weights(tiny_engine_bundle, tiny_checkpoint, monkeypatch) -> None:
    """However small the weights of the first bundle are, which may be integers."""
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    monkeypatch.setattr("jukebox_deploy.benchmarks.variants.worthwhile_threads", lambda spec, weights: weights)
    monkeypatch.setattr(subjects, "_file_bytes", lambda variant, graph: 3)
    graph = subjects.first.graphs["step_1"]
    own = weight_bytes(TINY.prior(1), WeightStorage.SINGLE)
    baseline = subjects.baseline(Backend.EAGER)
    assert [subjects.threads(variant, graph) for variant in (*subjects.engines, baseline)] == [3, own]


def test_graphs_that_are_not_there_are_refused(tiny_engine_bundle, tiny_checkpoint) -> None:
    """Before anything is opened."""
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    with pytest.raises(EngineError, match="step_3"):
        list(measure(subjects, BenchmarkPlan(level=3)))


def test_more_slots_than_an_engine_has_are_refused_before_the_first_is_opened() -> None:
    """Also those that come later."""
    subjects: Any = FakeSubjects()
    with pytest.raises(EngineError, match="step_1: 99 slots asked for"):
        next(measure(subjects, replace(PLAN, slots=(1, 99)), instruments=fast()))
    assert subjects.sessions == []


def test_a_stage_without_variants_is_refused_before_the_first_is_measured(tiny_engine_bundle, tiny_checkpoint) -> None:
    subjects = real_subjects(tiny_engine_bundle, tiny_checkpoint)
    kinds = (WorkloadKind.STEP, WorkloadKind.DECODE)
    plan = BenchmarkPlan(kinds, level=0, slots=(1,), baselines=(Backend.TORCH_COMPILE,), only_baselines=True)
    with pytest.raises(ConfigError, match="no variant is left to measure in the workload decode"):
        next(measure(subjects, plan, instruments=fast()))


def fast() -> Instruments:
    return Instruments(probe=lambda size: 1e9)
