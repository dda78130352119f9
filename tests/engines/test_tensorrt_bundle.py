"""An ONNX bundle becomes a bundle of engines, or nothing is written."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from jukebox_deploy.contract import DimensionRange, GraphKind, LinearWeights, Precision
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.cuda_device import free_device_bytes
from jukebox_deploy.engines.manifest import GraphEntry, Target
from jukebox_deploy.engines.tensorrt.build import BuildOptions, Feature
from jukebox_deploy.engines.tensorrt.bundle import BuildProgress, build_bundle, divide_capabilities, with_slots
from jukebox_deploy.engines.tensorrt.capabilities import Arithmetic
from jukebox_deploy.engines.tensorrt.flavour import BuildEvents
from jukebox_deploy.errors import EngineError, JukeboxError
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.opening.onnx_graphs import require_current_tables
from jukebox_deploy.presets import preset
from tests.engines.handmade_graphs import cache_spec, decode_spec, make_manifest, save_bundle


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


def test_a_bundle_becomes_a_bundle(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    source = replace(source, manifest=replace(source.manifest, sampling={"total_seconds": 60.0}))
    seen: list[BuildProgress] = []
    options = BuildOptions(compute_capabilities=("8.6", "12.0"))
    bundle, summaries = build_bundle(source, tmp_path / "engines", options, progress=seen.append)
    manifest = open_bundle(tmp_path / "engines").manifest
    assert manifest == bundle.manifest
    assert manifest.target is Target.TENSORRT_RTX
    assert manifest.tools["tensorrt-rtx"] == rtx.__version__
    for name in ("config", "checkpoint", "sampling"):
        assert getattr(manifest, name) == getattr(source.manifest, name)
    assert [summary.graph for summary in summaries] == ["step_0", "vqvae_decode_0"] == list(manifest.graphs)
    step = manifest.graph(GraphKind.STEP, 0)
    assert step.spec == cache_spec()
    assert step.compute_capabilities == ("8.6", "12.0")
    assert step.options["onnx_sha256"] == [source.manifest.files["step_0.onnx"].sha256]
    assert step.options["weights_sha256"] == [source.manifest.files["step_0.weights"].sha256]
    assert step.options["activation_bytes"] == summaries[0].activation_bytes
    assert [event for event in seen if not event.phase] == [BuildProgress(built, 2) for built in (0, 1, 2)]
    in_work = {(event.built, event.engine) for event in seen if event.phase}
    assert in_work == {(0, "step_0"), (1, "vqvae_decode_0")}
    assert {event.engines for event in seen} == {2}
    assert (min(event.done for event in seen), max(event.done for event in seen)) == (0.0, 1.0)


def test_some_graphs_only(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    bundle, _ = build_bundle(source, tmp_path / "engines", BuildOptions(), ["vqvae_decode_0"])
    assert list(bundle.graphs) == ["vqvae_decode_0"]
    with pytest.raises(EngineError, match=r"has no graph step_7; it has step_0 and vqvae_decode_0"):
        build_bundle(source, tmp_path / "other", BuildOptions(), ["step_7"])


def test_engines_are_not_built_from_engines(rtx: Any, tmp_path: Path) -> None:
    bundle, _ = build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", BuildOptions())
    with pytest.raises(EngineError, match="holds tensorrt-rtx engines; build from an exported ONNX bundle"):
        build_bundle(bundle, tmp_path / "again", BuildOptions())


def test_a_full_folder_is_left_alone(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    with pytest.raises(JukeboxError, match="already there and not empty"):
        build_bundle(source, tmp_path / "onnx", BuildOptions())
    assert open_bundle(tmp_path / "onnx").manifest == source.manifest


def test_a_gpu_that_a_graph_cannot_run_on_is_refused_at_once(tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx", Precision.BF16)
    with pytest.raises(EngineError, match=r"step_0: compute capability 7\.5 cannot run bf16 engines"):
        build_bundle(source, tmp_path / "engines", BuildOptions(compute_capabilities=("8.9", "7.5")))
    assert not (tmp_path / "engines").exists()


def test_or_left_out_graph_by_graph_with_the_reason(rtx: Any, tmp_path: Path) -> None:
    options = BuildOptions(compute_capabilities=("7.5", "8.9"), skip_refused=True)
    bundle, summaries = build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", options)
    graphs = bundle.manifest.graphs
    assert graphs["step_0"].compute_capabilities == summaries[0].compute_capabilities == ("8.9",)
    assert graphs["vqvae_decode_0"].compute_capabilities == ("7.5", "8.9")
    assert "7.5 cannot multiply fp32 matrices" in summaries[0].refused[0]
    assert graphs["step_0"].options["refused"] == list(summaries[0].refused)
    assert summaries[1].refused == ()


def test_without_any_named_those_that_can_run_a_graph_are_where_some_cannot(rtx: Any, tmp_path: Path) -> None:
    exported = save_bundle(tmp_path / "onnx")
    source = replace(exported, manifest=replace(exported.manifest, linear_weights=LinearWeights.FP8))
    bundle, summaries = build_bundle(source, tmp_path / "engines", BuildOptions())
    graphs = open_bundle(bundle.folder).manifest.graphs
    assert graphs["step_0"].compute_capabilities == ("8.9", "12.0", "12.1")
    assert graphs["vqvae_decode_0"].compute_capabilities == ()  # the flavour's choice, newer GPUs included
    assert [reason[:43] for reason in graphs["step_0"].options["refused"]] == [
        "compute capability 8.0 cannot run fp8 weigh",
        "compute capability 8.6 cannot run fp8 weigh",
    ]
    assert summaries[1].refused == ()


@pytest.mark.parametrize("feature", [Feature.REFIT, Feature.STRIPPED])
def test_none_are_named_for_weights_that_come_later(rtx: Any, feature: Feature) -> None:
    """With several TensorRT-RTX 1.7 fails in `kernel_gen.cpp: CHECK(sm_vers_.size() == 1)`."""
    options = BuildOptions(features=(feature,))
    assert divide_capabilities(cache_spec(), Arithmetic(Precision.FP16, LinearWeights.FP8), options) == ((), ())


@pytest.mark.parametrize("feature", [Feature.REFIT, Feature.STRIPPED])
def test_weights_that_come_later_are_for_one_gpu(rtx: Any, feature: Feature) -> None:
    fp16 = Arithmetic(Precision.FP16)
    one, two = (BuildOptions(compute_capabilities=c, features=(feature,)) for c in (("8.9",), ("8.6", "8.9")))
    assert divide_capabilities(cache_spec(), fp16, one) == (("8.9",), ())
    with pytest.raises(EngineError, match=rf"step_0: .* --feature {feature} .* asks for 8\.6 and 8\.9: name one"):
        divide_capabilities(cache_spec(), fp16, two)
    left_one = replace(two, compute_capabilities=("7.5", "8.9"), skip_refused=True)
    assert divide_capabilities(cache_spec(), fp16, left_one)[0] == ("8.9",)
    # The other flavour has a word of its own for GPUs that are named.
    assert divide_capabilities(cache_spec(), fp16, replace(two, target=Target.TENSORRT))[0] == ("8.6", "8.9")


def test_features_are_tried_before_anything_is_built(rtx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU a builder says at the end of a build that it cannot strip an engine of its weights."""
    if free_device_bytes() is not None:
        pytest.skip("there is a GPU")
    monkeypatch.setattr("jukebox_deploy.engines.tensorrt.bundle.build_engine", None)
    source = save_bundle(tmp_path / "onnx")
    with pytest.raises(EngineError, match="Stripping and refitting of weights needs a GPU"):
        build_bundle(source, tmp_path / "engines", BuildOptions(features=(Feature.STRIPPED,)))
    assert not (tmp_path / "engines").exists()


def test_a_graph_for_no_gpu_at_all_is_refused(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    with pytest.raises(EngineError, match="cannot multiply fp32 matrices"):
        build_bundle(source, tmp_path / "engines", BuildOptions(compute_capabilities=("7.5",), skip_refused=True))


def test_a_gpu_without_a_name_is_left_out_with_the_reason(rtx: Any, tmp_path: Path) -> None:
    options = BuildOptions(compute_capabilities=("8.9", "9.9"), skip_refused=True)
    bundle, summaries = build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", options)
    assert {entry.compute_capabilities for entry in bundle.manifest.graphs.values()} == {("8.9",)}
    for summary in summaries:
        (refusal,) = summary.refused
        assert refusal.startswith("compute capability 9.9 has no name in tensorrt-rtx, which knows 7.5, ")
        assert bundle.manifest.graphs[summary.graph].options["refused"] == [refusal]
    for gone in (("9.9",), ("7.5", "9.9")):
        with pytest.raises(EngineError, match=r"step_0: .* 9\.9 has no name.*No GPU of --compute is left"):
            build_bundle(open_bundle(tmp_path / "onnx"), tmp_path / "none", replace(options, compute_capabilities=gone))
    assert not (tmp_path / "none").exists()


def test_the_manifest_says_how_engines_were_made(rtx: Any, tmp_path: Path) -> None:
    options = BuildOptions(slots=(8, 2), features=(Feature.WEIGHT_STREAMING,))
    bundle, _ = build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", options)
    step = bundle.manifest.graphs["step_0"]
    assert (step.options["slots"], step.options["profiles"], step.options["features"]) == (
        [2, 8],
        2,
        ["weight-streaming"],
    )
    assert [(r.minimum, r.optimum, r.maximum) for r in step.spec.ranges] == [(2, 4, 8)]


def test_numbers_of_slots_that_a_graph_does_not_take_are_refused(tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    with pytest.raises(EngineError, match="step_0 was exported for 1 to 16 slots, not for 32"):
        build_bundle(source, tmp_path / "engines", BuildOptions(slots=(4, 32)))


def test_slots_are_no_matter_of_sound_nor_of_what_is_made_window_by_window() -> None:
    assert with_slots(decode_spec(), (2, 4)) == decode_spec()
    graphs = declare_graphs(preset("5b_lyrics"))
    for name in ("condition_2", "lyrics_2", "condition_0"):
        assert with_slots(graphs[name], (2, 4)) == graphs[name]
    sizes = {name: with_slots(graphs[name], (2, 4)).ranges[0] for name in ("step_0", "prefill_0")}
    assert sizes == {"step_0": DimensionRange("B", 2, 4, 4), "prefill_0": DimensionRange("B", 1, 4, 4)}


SLOT_CHOICES = [slots for count in (1, 2, 3) for slots in combinations(range(1, 17), count)]


@pytest.mark.parametrize("exported", [(1, 4, 16), (2, 8, 16), (1, 16, 16), (4, 4, 4), (1, 1, 1)])
def test_engines_for_any_numbers_of_slots_can_be_opened(exported: tuple[int, int, int]) -> None:
    """Whoever opens a bundle compares its tables with those that an export would declare."""
    graphs = declare_graphs(preset("tiny"), GraphOptions(Precision.FP16, exported))
    choices = [slots for slots in SLOT_CHOICES if exported[0] <= slots[0] and slots[-1] <= exported[2]]
    assert choices
    manifest = make_manifest([GraphEntry(spec, f"{name}.engine") for name, spec in graphs.items()])
    for slots in choices:
        entries = {name: replace(entry, spec=with_slots(entry.spec, slots)) for name, entry in manifest.graphs.items()}
        require_current_tables(EngineBundle(Path("engines"), replace(manifest, graphs=entries)))
        step, prefill = (entries[name].spec.range("B") for name in ("step_0", "prefill_0"))
        assert (step.minimum, prefill.minimum, step.maximum) == (slots[0], 1, slots[-1])
        assert slots[0] <= step.optimum == prefill.optimum <= slots[-1]


def test_missing_weights_fail_in_the_parser_and_leave_nothing(rtx: Any, tmp_path: Path) -> None:
    source = save_bundle(tmp_path / "onnx")
    (tmp_path / "onnx" / "step_0.weights").unlink()
    with pytest.raises(EngineError, match=r"step_0: tensorrt-rtx cannot parse the graph: .*step_0\.weights"):
        build_bundle(source, tmp_path / "engines", BuildOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


def raise_interrupt(*event: object) -> None:
    raise KeyboardInterrupt


def send_interrupt(*event: object) -> None:
    signal.raise_signal(signal.SIGINT)


def terminate(*event: object) -> None:
    signal.raise_signal(signal.SIGTERM)


def end(*signal: object) -> None:
    raise SystemExit(1)


@pytest.fixture
def handlers() -> Iterator[dict[int, Any]]:
    """Those of a program: Ctrl-C may be ignored where tests run in the background."""
    own: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: end}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield {number: signal.getsignal(number) for number in own}
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("interrupt", "raised"),
    [(raise_interrupt, KeyboardInterrupt), (send_interrupt, KeyboardInterrupt), (terminate, SystemExit)],
)
def test_an_interruption_ends_the_build_and_leaves_nothing(
    rtx: Any, tmp_path: Path, interrupt: Any, raised: type[BaseException], handlers: dict[int, Any]
) -> None:
    with pytest.raises(raised):
        build_bundle(save_bundle(tmp_path / "onnx"), tmp_path / "engines", BuildOptions(), progress=interrupt)
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_reaches_no_callback_and_is_not_lost(
    handlers: dict[int, Any], number: signal.Signals, raised: type[BaseException]
) -> None:
    """A handler may run at any line; the library prints and forgets what a callback raises."""
    events = BuildEvents()
    reached = False
    with pytest.raises(raised), events.interruptible():
        signal.raise_signal(number)
        reached = True
    assert reached
    assert signal.getsignal(number) is handlers[number]


def test_a_signal_that_a_program_ignores_stays_ignored(handlers: dict[int, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    events = BuildEvents()
    with events.interruptible():
        signal.raise_signal(signal.SIGINT)
    assert events.failure is None
