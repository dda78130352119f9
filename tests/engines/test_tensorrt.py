"""What only the TensorRT backend promises: replayed steps, nothing through the host, memory, clear refusals."""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.device import NoDeviceError, OutOfDeviceMemoryError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt import runtime as tensorrt_runtime
from jukebox_deploy.engines.tensorrt.engine import TensorRtEngine
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.engines.tensorrt.graph import best_profile
from jukebox_deploy.errors import EngineError
from tests.engines import fake_tensorrt, handmade_prior
from tests.engines.fake_tensorrt import FakeSettings, save_engines
from tests.engines.host_device import HostDevice

pytest.importorskip("onnxruntime")

BOTH = (Target.TENSORRT, Target.TENSORRT_RTX)


@dataclass
class Machine:
    """A pretended GPU with a flavour, and an engine on it."""

    engine: TensorRtEngine
    device: HostDevice
    settings: FakeSettings

    @property
    def runtime(self) -> fake_tensorrt.Runtime:
        runtime: fake_tensorrt.Runtime = self.engine.platform.runtime
        return runtime


def machine(bundle: EngineBundle, options: TensorRtOptions | None = None, **device) -> Machine:
    settings, host = FakeSettings(), HostDevice(**device)
    platform = fake_tensorrt.platform(bundle.manifest.target, host, settings)
    return Machine(TensorRtEngine(bundle, platform, options), host, settings)


@pytest.fixture(scope="module")
def onnx_bundle(tmp_path_factory):
    return handmade_prior.save(tmp_path_factory.mktemp("handmade") / "onnx")


@pytest.fixture(scope="module", params=BOTH)
def bundle(request, onnx_bundle, tmp_path_factory):
    return save_engines(onnx_bundle, tmp_path_factory.mktemp(str(request.param)) / "engines", request.param)


@pytest.fixture(scope="module")
def rtx_bundle(onnx_bundle, tmp_path_factory):
    return save_engines(onnx_bundle, tmp_path_factory.mktemp("rtx") / "engines")


def fill(session) -> None:
    rng = np.random.default_rng(0)
    for slot in range(session.slots):
        session.write("position", slot, np.asarray(3 + slot))
        for name in ("query", "key_0"):
            shape = session.spec.tensor(name).shape({"B": 1})[1:]
            session.write(name, slot, rng.standard_normal(shape, np.float32) / 8)


def state(session) -> list[np.ndarray]:
    names = ("position", "key_0", "result")
    return [session.read(name, slot) for name in names for slot in range(session.slots)]


class TestReplay:
    def test_every_step_after_the_first_three_is_one_launch(self, bundle):
        found = machine(bundle)
        session = found.engine.prior_session(0, 3)
        fill(session)
        session.step(3)
        launches, waits = found.device.launches, found.device.waits
        session.step(7)
        assert session.replays
        assert found.device.launches - launches == 7
        assert found.device.waits == waits  # the host does not wait for a step

    @pytest.mark.parametrize("steps", [1, 2, 3, 6])
    def test_replayed_steps_are_those_of_plain_ones(self, bundle, steps):
        states = []
        for cuda_graph in (True, False):
            found = machine(bundle, TensorRtOptions(cuda_graph=cuda_graph))
            session = found.engine.prior_session(0, 2)
            assert session.replays is cuda_graph
            fill(session)
            session.step(steps)
            states.append(state(session))
        for one, other in zip(*states, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_replay_that_does_something_else_is_refused(self, bundle):
        found = machine(bundle)
        found.settings.wrong_replay = True
        session = found.engine.prior_session(0, 1)
        fill(session)
        with pytest.raises(EngineError, match=r"gives other values of \w+ than the step itself.*--no-cuda-graph"):
            session.step(1)
        assert found.device.recordings == []

    def test_a_replay_that_does_nothing_is_refused(self, bundle, monkeypatch):
        found = machine(bundle)
        monkeypatch.setattr("tests.engines.host_device.HostRecording.replay", lambda recording: None)
        session = found.engine.prior_session(0, 1)
        fill(session)
        with pytest.raises(EngineError, match="than the step itself"):
            session.step(1)

    def test_a_step_that_cannot_be_recorded_and_must_be_says_how_to_do_without(self, bundle, monkeypatch):
        found = machine(bundle, TensorRtOptions(cuda_graph=True))

        def refuse(work):
            raise EngineError("operation not permitted when stream is capturing.")

        monkeypatch.setattr(found.device, "record", refuse)
        session = found.engine.prior_session(0, 1)
        with pytest.raises(EngineError, match=r"operation not permitted.*--no-cuda-graph"):
            session.step(1)

    def test_a_step_that_cannot_be_recorded_and_need_not_be_runs_plainly(self, bundle, monkeypatch):
        found, plain = machine(bundle), machine(bundle, TensorRtOptions(cuda_graph=False))

        def refuse(work):
            raise EngineError("operation not permitted when stream is capturing.")

        monkeypatch.setattr(found.device, "record", refuse)
        states = []
        for one in (found, plain):
            session = one.engine.prior_session(0, 2)
            fill(session)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                session.step(5)
            states.append(state(session))
            assert not session.replays
            said = [str(warning.message) for warning in caught]
            assert [text.endswith("Steps run without a CUDA graph.") for text in said] == [True] * (one is found)
        for one, other in zip(*states, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_recording_that_a_later_one_spoils_is_refused(self, bundle, monkeypatch):
        """Both turns use one context, and the second binds its own addresses to it."""
        found = machine(bundle)
        session = found.engine.prior_session(0, 1)
        fill(session)
        session.step(2)  # both are recorded, and were right
        monkeypatch.setattr(found.device.recordings[0], "works", [])
        with pytest.raises(EngineError, match=r"gives other values of \w+ than the step itself"):
            session.step(1)

    def test_an_engine_that_is_not_capturable_runs_plainly(self, rtx_bundle):
        found = machine(rtx_bundle)
        found.settings.capturable = False
        with pytest.warns(RuntimeWarning, match=r"cannot be recorded\. Steps run without a CUDA graph\."):
            session = found.engine.prior_session(0, 1)
        fill(session)
        session.step(3)
        assert not session.replays
        assert found.device.launches == 0
        assert session.read("position", 0) == 6

    def test_an_engine_that_must_be_recorded_and_cannot_be_is_refused(self, rtx_bundle):
        found = machine(rtx_bundle, TensorRtOptions(cuda_graph=True))
        found.settings.capturable = False
        with pytest.raises(EngineError, match="says that this step cannot be recorded; drop --cuda-graph"):
            found.engine.prior_session(0, 1)
        assert (found.device.used, found.settings.contexts) == (0, 0)


class TestMemory:
    def test_an_engine_gives_everything_back(self, bundle):
        found = machine(bundle)
        with found.engine as engine:
            session = engine.prior_session(0, 2)
            fill(session)
            session.step(3)
            runner = engine.runner(GraphKind.VQVAE_DECODE, 0)
            runner({"codes": np.zeros((1, 5), np.int64)})
            assert found.device.used > 0
            assert len(found.device.recordings) == 2
        assert (found.device.used, found.device.recordings, found.settings.contexts) == (0, [], 0)

    def test_what_nobody_holds_any_more_is_given_back_at_once(self, bundle):
        found = machine(bundle)
        gc.collect()
        gc.disable()  # a cycle would keep it until the collector comes
        try:
            session = found.engine.prior_session(0, 2)
            fill(session)
            session.step(3)
            del session
            assert (found.device.used, found.device.recordings, found.settings.contexts) == (0, [], 0)
        finally:
            gc.enable()

    def test_steps_take_no_memory(self, bundle):
        found = machine(bundle)
        session = found.engine.prior_session(0, 2)
        fill(session)
        session.step(2)
        before = found.device.used
        session.prefill(range(1, 2))
        session.step(5)
        assert found.device.used == before

    def test_step_and_prefill_work_in_the_same_memory(self, bundle):
        found = machine(bundle)
        session = found.engine.prior_session(0, 2)
        specs = {t.name: t.bytes({"B": 2}) for t in session.spec.tensors}
        tensors = sum(specs.values()) + specs["position"]  # a state that is not in place has two buffers
        aside = 2 * specs["position"]
        assert tensors + aside + fake_tensorrt.MEMORY_BYTES <= found.device.used
        assert found.device.used < tensors + aside + 2 * fake_tensorrt.MEMORY_BYTES

    def test_too_many_slots_say_how_many_would_fit(self, bundle):
        one = machine(bundle)
        session = one.engine.prior_session(0, 1)
        found = machine(bundle, memory_bytes=3 * one.device.used)
        del session
        with pytest.raises(
            EngineError, match=r"Level 0 with 4 slots takes at least .* [kM]B, .* at most [123] would fit"
        ):
            found.engine.prior_session(0, 4)
        assert (found.device.used, found.settings.contexts) == (0, 0)

    def test_weights_that_do_not_fit_are_no_other_error(self, bundle):
        found = machine(bundle, memory_bytes=1000)
        found.settings.refuse = "Error Code 2: OutOfMemory (Requested size was 1 bytes.)"
        with pytest.raises(EngineError, match=r"Requested size was 1 bytes.*Not even one slot fits"):
            found.engine.prior_session(0, 1)

    def test_a_prefill_that_cannot_be_opened_leaves_nothing(self, bundle, monkeypatch):
        found = machine(bundle)
        read = EngineBundle.read_file

        def read_step_only(self, name):
            if name.startswith("prefill"):
                raise EngineError("the disk is broken")
            return read(self, name)

        monkeypatch.setattr(EngineBundle, "read_file", read_step_only)
        with pytest.raises(EngineError, match="broken"):
            found.engine.prior_session(0, 1)
        assert (found.device.used, found.settings.contexts) == (0, 0)


class TestStatelessGraphs:
    def test_sizes_may_change_from_call_to_call(self, bundle, onnx_bundle):
        found = machine(bundle)
        runner, expected = (
            engine.runner(GraphKind.VQVAE_DECODE, 0)
            for engine in (found.engine, handmade_prior.onnx_engine(onnx_bundle.folder))
        )
        used = []
        for batch, length in ((1, 5), (2, 200), (1, 5), (2, 200)):
            feeds = {"codes": np.arange(batch * length).reshape(batch, length) % 8}
            np.testing.assert_array_equal(runner(feeds)["audio"], expected(feeds)["audio"])
            used.append(found.device.used)
        assert used[0] < used[1] == used[2] == used[3]

    def test_a_call_that_is_too_large_does_not_spoil_the_next(self, bundle, onnx_bundle):
        small = {"codes": np.zeros((1, 5), np.int64)}
        expected = handmade_prior.onnx_engine(onnx_bundle.folder).runner(GraphKind.VQVAE_DECODE, 0)(small)["audio"]
        found = machine(bundle, memory_bytes=fake_tensorrt.MEMORY_BYTES + 4096)
        runner = found.engine.runner(GraphKind.VQVAE_DECODE, 0)
        runner(small)
        with pytest.raises(OutOfDeviceMemoryError):
            runner({"codes": np.zeros((2, 200), np.int64)})
        np.testing.assert_array_equal(runner(small)["audio"], expected)

    def test_a_graph_beside_the_slots_that_does_not_fit_says_what_to_do(self, bundle):
        found = machine(bundle, memory_bytes=100)
        with pytest.raises(OutOfDeviceMemoryError, match="vqvae_decode_0 needs it beside the slots: ask for fewer"):
            found.engine.runner(GraphKind.VQVAE_DECODE, 0)
        assert (found.device.used, found.settings.contexts) == (0, 0)


@pytest.fixture
def odd_bundle(monkeypatch, tmp_path):
    """A prior whose slots begin at addresses that TensorRT does not take."""
    monkeypatch.setattr(handmade_prior, "WIDTH", 5)
    monkeypatch.setattr(handmade_prior, "LENGTH", 33)
    monkeypatch.setattr(handmade_prior, "WEIGHT", np.eye(5, dtype=np.float32))
    return handmade_prior.save(tmp_path / "onnx")


@pytest.mark.parametrize("target", BOTH)
def test_slots_at_odd_addresses_are_prefilled_all_the_same(odd_bundle, tmp_path, target):
    found = machine(save_engines(odd_bundle, tmp_path / "engines", target))
    onnx = handmade_prior.onnx_engine(odd_bundle.folder)
    states = []
    for engine in (found.engine, onnx):
        session = engine.prior_session(0, 4)
        fill(session)
        for slots in (range(1, 3), range(4), range(3, 4)):
            session.prefill(slots)
            session.step(1)
        states.append(state(session))
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


class TestProfiles:
    @pytest.mark.parametrize(("slots", "profile"), [(1, 0), (2, 1), (3, 1), (4, 1)])
    def test_slots_choose_the_profile_that_was_made_for_them(self, onnx_bundle, tmp_path, slots, profile):
        found = machine(save_engines(onnx_bundle, tmp_path / "engines", best_slots=(1, 4)))
        session = found.engine.prior_session(0, slots)
        fill(session)
        session.prefill(range(slots))
        session.prefill(range(1))  # with another profile than that of the step
        session.step(2)
        assert [session.read("position", slot) for slot in range(slots)] == [9, 8, 9, 10][:slots]
        (context,) = {part._context for part in session._step.parts}
        assert context._profile == profile

    def test_of_two_profiles_as_near_the_larger_one_is_taken(self, rtx_bundle):
        session = machine(rtx_bundle).engine.prior_session(0, 1)
        engine = session._step.parts[0].engine
        engine.profiles = [{"x": ((1,), (1,), (2,))}, {"x": ((2,), (4,), (4,))}]
        assert [best_profile(engine, {"x": (slots,)}, "step_0") for slots in (1, 2, 3, 4)] == [0, 1, 1, 1]

    def test_a_profile_that_cannot_be_chosen_is_told_of(self, onnx_bundle, tmp_path, monkeypatch):
        """The bindings raise there, and say nothing themselves."""
        found = machine(save_engines(onnx_bundle, tmp_path / "engines", best_slots=(1, 4)))

        def refuse(context, index, stream):
            context._log.error("the profile is in use")
            raise RuntimeError("Error in set optimization profile.")

        monkeypatch.setattr(fake_tensorrt.IExecutionContext, "set_optimization_profile_async", refuse)
        with pytest.raises(EngineError, match=r"step_0: tensorrt-rtx cannot switch to profile 1: the profile is in"):
            found.engine.prior_session(0, 4)

    def test_sizes_that_no_profile_takes_are_refused(self, rtx_bundle):
        found = machine(rtx_bundle)
        session = found.engine.prior_session(0, 1)
        engine = session._step.parts[0].engine
        with pytest.raises(EngineError, match="no profile of the engine takes"):
            best_profile(engine, {"past_position": (5,)}, "step_0")


class TestEnginesThatDoNotFitTheTable:
    @pytest.mark.parametrize(
        ("bend", "said"),
        [
            (
                {"wrong_alias": {"present_key_0": None}},
                "present_key_0 shares the memory of no input, expected past_key_0",
            ),
            ({"wrong_alias": {"present_position": "past_position"}}, "shares the memory of past_position, expected no"),
            ({"location": {"past_position": "HOST"}}, "wants past_position in host memory"),
        ],
    )
    def test_memory(self, bundle, bend, said):
        found = machine(bundle)
        for name, value in bend.items():
            setattr(found.settings, name, value)
        with pytest.raises(EngineError, match=said):
            found.engine.prior_session(0, 1)
        assert (found.device.used, found.settings.contexts) == (0, 0)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"name": "other"}, "disagree on other and query"),
            ({"dtype": "float16"}, "query is FLOAT .* float16 in the"),
        ],
    )
    def test_tables(self, rtx_bundle, changes, said):
        manifest = rtx_bundle.manifest
        entry = manifest.graphs["step_0"]
        tensors = tuple(replace(t, **changes) if t.name == "query" else t for t in entry.spec.tensors)
        graphs = {**manifest.graphs, "step_0": replace(entry, spec=replace(entry.spec, tensors=tensors))}
        found = machine(EngineBundle(rtx_bundle.folder, replace(manifest, graphs=graphs)))
        with pytest.raises(EngineError, match=said):
            found.engine.prior_session(0, 1)


class TestBundlesThatDoNotRunHere:
    def test_another_flavour(self, rtx_bundle):
        with pytest.raises(EngineError, match=r"files for tensorrt-rtx, not for tensorrt\. Build it again"):
            TensorRtEngine(rtx_bundle, fake_tensorrt.platform(Target.TENSORRT))

    def test_another_version(self, rtx_bundle):
        platform = replace(fake_tensorrt.platform(Target.TENSORRT_RTX), version="1.8.0")
        said = r"built with tensorrt-rtx 1\.7\.1\.116, and 1\.8\.0 is installed.*pip install tensorrt-rtx==1\.7\.1\.116"
        with pytest.raises(EngineError, match=said):
            TensorRtEngine(rtx_bundle, platform)

    def test_another_gpu(self, bundle):
        said = r"built for compute capability 8\.6 and 8\.9, and a pretended GPU has 9\.0\. Build it again"
        with pytest.raises(EngineError, match=said):
            machine(bundle, compute_capability="9.0")

    def test_the_capability_to_build_for_is_named_where_the_builder_takes_it(self, rtx_bundle):
        with pytest.raises(EngineError, match=r"--compute 12\.0"):
            machine(rtx_bundle, compute_capability="12.0")

    @pytest.mark.parametrize(
        ("diagnostics", "said"),
        [
            (fake_tensorrt.EngineInvalidityDiagnostics.VERSION_MISMATCH, r"VERSION_MISMATCH.*of another version"),
            (fake_tensorrt.EngineInvalidityDiagnostics.UNSUPPORTED_CC, r"UNSUPPORTED_CC.*not built for the compute"),
            (fake_tensorrt.EngineInvalidityDiagnostics.OLD_CUDA_DRIVER, r"Update the NVIDIA driver"),
            (fake_tensorrt.EngineInvalidityDiagnostics.INSUFFICIENT_GPU_MEMORY, r"fit"),
            (0, "no diagnosis"),
        ],
    )
    def test_what_the_library_says_of_an_engine(self, rtx_bundle, diagnostics, said):
        found = machine(rtx_bundle)
        found.settings.validity, found.settings.diagnostics = "INVALID", int(diagnostics)
        with pytest.raises(EngineError, match=said):
            found.engine.prior_session(0, 1)

    def test_the_library_explains_itself_as_information(self, rtx_bundle):
        found = machine(rtx_bundle)
        found.settings.validity, found.settings.diagnostics = "INVALID", 1
        with pytest.raises(EngineError, match=r"\(VERSION_MISMATCH\): The engine was created for another place\. The"):
            found.engine.prior_session(0, 1)

    def test_a_gpu_of_which_a_flavour_knows_nothing(self, rtx_bundle):
        """Building again would not help there."""
        found = machine(rtx_bundle)
        found.settings.validity, found.settings.diagnostics = "INVALID", 2
        found.engine.platform.trt.ComputeCapability = SimpleNamespace(SM80=0, SM120=0, NONE=0)
        said = r"does not support compute capability 8\.9 of .*, only 8\.0 and 12\.0: use another flavour"
        with pytest.raises(NoDeviceError, match=said):
            found.engine.prior_session(0, 1)

    def test_a_slower_engine_runs(self, rtx_bundle):
        found = machine(rtx_bundle)
        found.settings.validity = "SUBOPTIMAL"
        found.engine.prior_session(0, 1).step(1)

    def test_a_refusal_has_the_words_of_the_library(self, bundle):
        found = machine(bundle)
        found.settings.refuse = "Error Code 1: Serialization (the magic tag is wrong)"
        with pytest.raises(EngineError, match=r"does not accept step_0\.engine: .*the magic tag is wrong"):
            found.engine.prior_session(0, 1)


class TestFeatures:
    """What engines were built to allow, and what they need for it."""

    @pytest.fixture
    def featured(self, onnx_bundle, tmp_path):
        return lambda *features: save_engines(onnx_bundle, tmp_path / "-".join(features), features=features)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                TensorRtOptions(lean_runtime=Path("lib.so")),
                "not built for --lean-runtime.*--feature version-compatible",
            ),
            (TensorRtOptions(weight_budget=1), "not built for --weight-budget.*--feature weight-streaming"),
        ],
    )
    def test_options_that_the_engines_were_not_built_for(self, rtx_bundle, options, said):
        with pytest.raises(EngineError, match=said):
            machine(rtx_bundle, options)

    def test_weights_for_engines_that_have_them(self, rtx_bundle, onnx_bundle):
        with pytest.raises(EngineError, match="not built for --weights-from"):
            machine(rtx_bundle, TensorRtOptions(weights_from=onnx_bundle))

    @pytest.mark.parametrize(("budget", "kept"), [(300, 300), (5000, 1000)])
    def test_streamed_weights_keep_to_their_budget_and_are_not_recorded(self, featured, budget, kept):
        found = machine(featured("weight-streaming"), TensorRtOptions(weight_budget=budget))
        session = found.engine.prior_session(0, 1)
        assert not session.replays
        assert session._step.parts[0].engine.weight_streaming_budget_v2 == kept
        session.step(2)

    def test_a_budget_that_is_not_kept_is_an_error(self, featured, monkeypatch):
        """Setting it never fails by itself."""
        keeps_all = property(lambda engine: 1000, lambda engine, budget: None)
        monkeypatch.setattr(fake_tensorrt.ICudaEngine, "weight_streaming_budget_v2", keeps_all, raising=False)
        found = machine(featured("weight-streaming"), TensorRtOptions(weight_budget=300))
        with pytest.raises(EngineError, match="cannot limit the weights of step_0 on the GPU to 300 bytes"):
            found.engine.prior_session(0, 1)

    def test_engines_that_can_stream_are_not_recorded_without_a_budget_either(self, featured):
        found = machine(featured("weight-streaming"))
        session = found.engine.prior_session(0, 1)
        session.step(2)
        assert not session.replays
        assert found.device.launches == 0

    def test_streaming_and_recorded_steps_exclude_each_other(self, featured):
        said = "step_0 was built to stream its weights, and such runs cannot be recorded; drop --cuda-graph, or build"
        with pytest.raises(EngineError, match=said):
            machine(featured("weight-streaming"), TensorRtOptions(cuda_graph=True, weight_budget=300))

    def test_stripped_engines_get_their_weights(self, featured, onnx_bundle):
        bundle = featured("stripped")
        platform = fake_tensorrt.platform(bundle.manifest.target, None, FakeSettings(stripped=True))
        engine = TensorRtEngine(bundle, platform, TensorRtOptions(weights_from=onnx_bundle))
        engine.prior_session(0, 1).step(1)

    def test_stripped_engines_without_weights(self, featured, onnx_bundle):
        bundle = featured("stripped")
        with pytest.raises(EngineError, match=r"has no weights; name the ONNX bundle .* with --weights-from"):
            machine(bundle)
        other = replace(onnx_bundle, manifest=replace(onnx_bundle.manifest, checkpoint="1" * 64))
        with pytest.raises(EngineError, match=r"was not built from .*, so it needs other weights"):
            machine(bundle, TensorRtOptions(weights_from=other))

    def test_stripped_engines_take_no_other_weights_for_the_same_graphs(self, tmp_path):
        source = handmade_prior.save_integers(tmp_path / "onnx")
        bundle = save_engines(source, tmp_path / "engines", features=("stripped",))
        files = source.manifest.files
        changed = {**files, "prior_0.weights": replace(files["prior_0.weights"], sha256="ef" * 32)}
        other = replace(source, manifest=replace(source.manifest, files=changed))
        machine(bundle, TensorRtOptions(weights_from=source))
        with pytest.raises(EngineError, match=r"was not built from .*, so it needs other weights"):
            machine(bundle, TensorRtOptions(weights_from=other))

    def test_version_compatible_engines_of_another_version_need_their_lean_runtime(self, onnx_bundle, tmp_path):
        bundle = save_engines(onnx_bundle, tmp_path / "x", Target.TENSORRT, features=("version-compatible",))
        platform = replace(fake_tensorrt.platform(bundle.manifest.target), version="11.9.0")
        with pytest.raises(EngineError, match="name the lean runtime of that version with --lean-runtime"):
            TensorRtEngine(bundle, platform)
        TensorRtEngine(bundle, platform, TensorRtOptions(lean_runtime=Path("lib.so")))

    def test_nobody_is_sent_for_a_lean_runtime_that_does_not_exist(self, featured):
        bundle = featured("version-compatible")
        platform = replace(fake_tensorrt.platform(bundle.manifest.target), version="1.8.0")
        with pytest.raises(EngineError, match=r"pip install tensorrt-rtx==[\d.]+$"):
            TensorRtEngine(bundle, platform)

    def test_a_lean_runtime_takes_the_place_of_the_other(self, tmp_path):
        platform = fake_tensorrt.platform(Target.TENSORRT_RTX)
        with pytest.raises(EngineError, match=r"cannot load the lean runtime .*none\.so: .*is no library"):
            tensorrt_runtime._with_lean_runtime(platform, tmp_path / "none.so")
        (tmp_path / "lib.so").touch()
        lean = tensorrt_runtime._with_lean_runtime(platform, tmp_path / "lib.so")
        assert lean.runtime is not platform.runtime is lean.parent


@pytest.mark.parametrize("change", ["flip", "truncate", "swap", "remove"])
def test_a_file_that_changed_after_the_bundle_was_opened_never_reaches_the_runtime(bundle, tmp_path, change):
    folder = tmp_path / "engines"
    folder.mkdir()
    for path in bundle.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    found = machine(open_bundle(folder))
    path = folder / "step_0.engine"
    content = bytearray(path.read_bytes())
    path.unlink()
    if change == "flip":
        content[len(content) // 2] ^= 1
    if change == "truncate":
        content = content[:-1]
    if change == "swap":
        content = bytearray((folder / "prefill_0.engine").read_bytes())
    if change != "remove":
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"step_0\.engine (is not the file of the manifest|cannot be read)"):
        found.engine.prior_session(0, 1)
    assert found.runtime.seen == 0


def test_manifests_are_written_for_what_was_built(rtx_bundle):
    """The pretended builder writes what the loader reads."""
    assert write_manifest(rtx_bundle.folder, rtx_bundle.manifest) == rtx_bundle.manifest
