"""The plan says what the sessions allocate, and what fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec, Precision, Role, TensorSpec
from jukebox_deploy.costs import allocated_cache_bytes
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import FileRecord, GraphEntry, Manifest, Target
from jukebox_deploy.engines.memory_plan import PriorMemory, VQVAEMemory, plan_bundle, plan_config, plan_vqvae, what_fits
from jukebox_deploy.engines.onnxruntime.engine import OnnxRuntimeEngine
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.engines.tensorrt.graph import TensorRtGraph
from jukebox_deploy.presets import PRESETS, preset
from tests.engines.handmade_graphs import cache_spec, decode_spec, make_manifest, make_model, save_cut_bundle
from tests.engines.host_device import HostDevice

KEY_BYTES = 2 * 8 * 16 * 2  # heads, length, width, float16
QUERY_BYTES = 2 * 16 * 2


def engines(**options: int) -> Manifest:
    """Engines of a step and a prefill, and of a decoder that is not counted."""
    step = GraphEntry(cache_spec(), "step_0.engine", options=options)
    prefill = replace(step, spec=replace(cache_spec(), kind=GraphKind.PREFILL), file="prefill_0.engine")
    decode = GraphEntry(decode_spec(), "vqvae_decode_0.engine")
    sizes = {"step_0.engine": 430, "prefill_0.engine": 600, "vqvae_decode_0.engine": 7}
    files = {name: FileRecord("ab" * 32, size) for name, size in sizes.items()}
    return replace(make_manifest([step, prefill, decode]), files=files, target=Target.TENSORRT)


def planned(manifest: Manifest) -> PriorMemory:
    (plan,) = plan_bundle(EngineBundle(Path("nowhere"), manifest))
    return plan


def test_other_states_count_twice() -> None:
    plan = planned(engines())
    assert plan == PriorMemory(
        level=0,
        precision=Precision.FP16,
        weights=1030,
        caches_per_slot=KEY_BYTES,
        window_per_slot=2 * 8 + QUERY_BYTES + QUERY_BYTES,  # position, query, result
        activations=None,
        most_slots=16,
    )


def test_every_onnx_graph_loads_its_own_copy_of_shared_weights(tmp_path: Path) -> None:
    """The step has all of the file, and the prefill a third of it."""
    matrix = np.ones((32, 16), np.float32)
    shared = np.concatenate([matrix, matrix, matrix])
    (tmp_path / "shared.weights").write_bytes(shared.tobytes())
    step = GraphEntry(cache_spec(), "step_0.onnx", ("shared.weights",))
    prefill = replace(step, spec=replace(cache_spec(), kind=GraphKind.PREFILL), file="prefill_0.onnx")
    for entry, array in ((step, shared), (prefill, matrix)):
        model = make_model(entry.spec, [], {"weight": array})
        onnx.external_data_helper.set_external_data(
            model.graph.initializer[0], "shared.weights", offset=0, length=array.nbytes
        )
        model.graph.initializer[0].ClearField("raw_data")
        (tmp_path / entry.file).write_bytes(model.SerializeToString())
    write_manifest(tmp_path, make_manifest([step, prefill]))
    files = sum((tmp_path / name).stat().st_size for name in ("step_0.onnx", "prefill_0.onnx"))
    (plan,) = plan_bundle(open_bundle(tmp_path))
    assert plan.weights == files + shared.nbytes + matrix.nbytes


def test_graphs_of_the_vqvae_are_planned_by_themselves() -> None:
    manifest = engines()
    decode = replace(manifest.graphs["vqvae_decode_0"], options={"activation_bytes": 50})
    manifest = replace(manifest, graphs={**manifest.graphs, "vqvae_decode_0": decode})
    (plan,) = plan_vqvae(EngineBundle(Path("nowhere"), manifest))
    assert plan == VQVAEMemory("vqvae_decode_0", weights=7, activations=50)
    assert plan.total == 57


@pytest.mark.parametrize(
    ("fewest", "most", "counts"),
    [(1, 16, (1, 2, 4, 8, 16)), (1, 1, (1,)), (3, 12, (3, 4, 8, 12)), (4, 8, (4, 8))],
)
def test_totals_are_for_powers_of_two_between_fewest_and_most(fewest: int, most: int, counts: tuple[int, ...]) -> None:
    plan = PriorMemory(0, Precision.FP16, 1000, 60, 40, 100, most_slots=most, fewest_slots=fewest)
    assert plan.slot_counts == counts


def test_what_parts_hand_over_counts_and_is_what_the_runner_allocates(tmp_path: Path) -> None:
    manifest = save_cut_bundle(tmp_path / "engines", parts=3).manifest
    plan = planned(manifest)
    prior = preset("tiny").prior(2)
    width, block = prior.transformer.width, prior.transformer.block_length
    borders = 2 * (width + block * width) * 2  # of the step and of the prefill, in float16
    conditioning = 4 * width  # which the step adds again at its end, in float32
    assert plan.hand_over_per_slot == borders + conditioning
    assert plan.total(3) - plan.total(2) == plan.caches_per_slot + plan.window_per_slot + plan.hand_over_per_slot
    device, slots = HostDevice(), 4
    for name in ("step_2", "prefill_2"):
        entry = manifest.graphs[name]
        parts: Any = [SimpleNamespace(spec=part.spec) for part in entry.parts]
        TensorRtGraph(entry.spec, parts, device, {"B": slots})
    assert device.used == slots * plan.hand_over_per_slot  # which aligns well here


def test_onnx_runtime_plans_what_parts_hand_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = save_cut_bundle(tmp_path / "graphs", parts=3, target=Target.ONNXRUNTIME)
    monkeypatch.setattr(GraphFile, "read", lambda *given: SimpleNamespace(weight_bytes=1))
    engine = OnnxRuntimeEngine(bundle.manifest.config, bundle.graphs, bundle.paths, parts=bundle.parts)
    files = sum(path.stat().st_size for path in bundle.paths.values() if path.stem != "vqvae_decode_0")
    (plan,) = plan_bundle(bundle)
    assert plan.hand_over_per_slot
    assert engine._plan(2) == replace(plan, weights=plan.weights - files, activations=None)


def test_activations_count_where_every_engine_says_them() -> None:
    plan = planned(engines(activation_bytes=500))
    assert plan.activations == 500  # step and prefill take turns
    assert plan.total(3) == 1030 + 500 + 3 * (KEY_BYTES + 2 * 8 + 2 * QUERY_BYTES)


def test_what_conditions_a_window_stays_open_beside_the_slots() -> None:
    """Its weights and working memory, and its tensors for one window."""
    tensors = (TensorSpec("artist", "int64", ("B",), Role.INPUT), TensorSpec("start", "float32", ("B", 5), Role.OUTPUT))
    spec = GraphSpec(GraphKind.CONDITION, 0, tensors, (DimensionRange("B", 1, 1, 1),))
    manifest = engines(activation_bytes=500)
    before = planned(manifest)
    entry = GraphEntry(spec, "condition_0.engine", options={"activation_bytes": 70})
    files = {**manifest.files, "condition_0.engine": FileRecord("ab" * 32, 3)}
    plan = planned(replace(manifest, graphs={**manifest.graphs, spec.name: entry}, files=files))
    assert (plan.weights, plan.activations, plan.one_window) == (before.weights + 3, 570, 8 + 20)
    assert plan.total(2) == before.total(2) + 3 + 70 + 28
    unknown = planned(replace(manifest, graphs={**manifest.graphs, spec.name: replace(entry, options={})}, files=files))
    assert unknown.activations is None


def test_what_fits() -> None:
    plan = PriorMemory(0, Precision.FP16, 1000, 60, 40, 100, most_slots=8)
    assert [plan.slots_within(memory) for memory in (0, 1100, 1199, 1200, 1499, 10_000)] == [0, 0, 0, 1, 3, 8]


def test_fewer_slots_than_the_step_takes_do_not_count() -> None:
    plan = PriorMemory(0, Precision.FP16, 1000, 60, 40, 100, most_slots=8, fewest_slots=4)
    assert [plan.slots_within(memory) for memory in (0, 1400, 1499, 1500, 1600, 10_000)] == [0, 0, 0, 4, 5, 8]


@pytest.mark.parametrize(
    ("activations", "fewest", "free", "said"),
    [
        (60, 1, 1500, "about 1.66 kB, and 1.50 kB were free. Ask for fewer slots: 4 would fit."),
        (60, 1, 10_000, "about 1.66 kB, and 10.0 kB were free. Ask for fewer slots: 5 would fit."),
        (None, 1, 1500, "at least 1.60 kB, and 1.50 kB were free. Ask for fewer slots: at most 5 would fit."),
        (60, 1, 1, "about 1.66 kB, and 0.00100 kB were free. Not even one slot fits."),
        (60, 4, 1000, "about 1.66 kB, and 1.00 kB were free. The engines take at least 4 slots, which do not fit; "),
    ],
)
def test_what_did_not_fit_says_what_would(activations: int | None, fewest: int, free: int, said: str) -> None:
    plan = PriorMemory(0, Precision.FP16, 1000, 60, 40, activations, most_slots=8, fewest_slots=fewest)
    assert what_fits(plan, 6, free).startswith(f"Level 0 with 6 slots takes {said}")


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("name", ["tiny", "1b_lyrics", "5b_lyrics"])
def test_caches_are_those_of_the_cost_formulas(name: str, precision: Precision) -> None:
    config = preset(name)
    for plan, prior in zip(plan_config(config, precision), config.priors, strict=True):
        lyric_rows = allocated_cache_bytes(prior, precision) - plan.caches_per_slot
        assert 0 <= lyric_rows <= plan.window_per_slot
        assert (lyric_rows > 0) == (prior.lyrics is not None and prior.lyrics.encoder is not None)


def test_the_plan_of_a_model_is_that_of_its_graphs(tiny_engine_bundle: EngineBundle) -> None:
    """But for the files' own contents, and small tensors such as masks."""
    plans = zip(plan_config(preset("tiny"), Precision.FP32), plan_bundle(tiny_engine_bundle), strict=True)
    assert [plan.weights for plan, _ in plans] == [
        sum(
            GraphFile.read(entry.spec, tiny_engine_bundle.folder / entry.file).weight_bytes
            for entry in tiny_engine_bundle.manifest.graphs.values()
            if entry.spec.model_level == level
        )
        for level in range(3)
    ]


def test_half_precision_takes_less() -> None:
    config = PRESETS["1b_lyrics"]
    full, half = (plan_config(config, precision)[-1] for precision in (Precision.FP32, Precision.FP16))
    assert half.caches_per_slot * 2 == full.caches_per_slot
    assert half.weights < 0.6 * full.weights


def test_a_system_without_priors_has_no_plan() -> None:
    assert plan_config(JukeboxConfig("codec", preset("tiny").vqvae), Precision.FP32) == []


def test_cache_and_window_make_the_whole_table() -> None:
    tensors = (
        TensorSpec("position", "int64", ("B",), Role.STATE),
        TensorSpec("codes", "int32", ("B", 5), Role.INPUT),
    )
    spec = GraphSpec(GraphKind.STEP, 0, tensors, (DimensionRange("B", 2, 2, 4),))
    manifest = replace(make_manifest([GraphEntry(spec, "step_0.engine")]), target=Target.TENSORRT)
    plan = planned(replace(manifest, files={"step_0.engine": FileRecord("ab" * 32, 3)}))
    assert (plan.weights, plan.caches_per_slot, plan.window_per_slot) == (3, 0, 2 * 8 + 5 * 4)
    assert (plan.fewest_slots, plan.most_slots) == (2, 4)
