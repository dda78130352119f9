"""Bundles of random weights to measure: what they hold, and that they are made once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks import preset_bundles
from jukebox_deploy.benchmarks.plan import BenchmarkPlan
from jukebox_deploy.benchmarks.preset_bundles import needed_graphs, prepare_bundles, system_to_measure
from jukebox_deploy.benchmarks.results import WorkloadKind
from jukebox_deploy.benchmarks.variants import open_subjects
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.quantised_weights import quantised_weights
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.presets import RELEASED_UPSAMPLERS, preset

STEP, DECODE, SONG = WorkloadKind.STEP, WorkloadKind.DECODE, WorkloadKind.SONG


def test_only_the_priors_that_are_measured_get_weights() -> None:
    """A released system weighs many GB."""
    assert [p.level for p in system_to_measure("1b_lyrics", BenchmarkPlan((STEP,), level=1)).priors] == [1]
    assert [p.level for p in system_to_measure("1b_lyrics", BenchmarkPlan((STEP,))).priors] == [0, 1, 2]
    assert system_to_measure("1b_lyrics", BenchmarkPlan((DECODE,), level=1)).priors == ()
    assert len(system_to_measure("tiny", BenchmarkPlan((SONG,))).priors) == 3


def test_the_upsampler_alone_is_the_released_one() -> None:
    """Of level 0."""
    assert system_to_measure("upsampler", BenchmarkPlan()).priors == RELEASED_UPSAMPLERS[:1]


def test_unknown_names_are_refused() -> None:
    """With the known ones."""
    with pytest.raises(ConfigError, match="mid"):
        system_to_measure("middle", BenchmarkPlan())
    with pytest.raises(ConfigError, match="level 2"):
        system_to_measure("mid", BenchmarkPlan(level=2))


@pytest.mark.parametrize(
    ("workloads", "level", "expected"),
    [
        ((STEP,), 1, {"step_1", "prefill_1"}),
        (
            (WorkloadKind.PREFILL, DECODE),
            None,
            {f"{k}_{n}" for k in ("step", "prefill") for n in range(3)} | {"vqvae_decode_0"},
        ),
        ((WorkloadKind.ENCODE,), 2, {"vqvae_encode_2"}),
        ((WorkloadKind.CONDITION,), 0, {"condition_0"}),
    ],
)
def test_only_the_graphs_that_run_are_exported(workloads, level, expected) -> None:
    """And the step and the prefill together."""
    assert set(needed_graphs(preset("tiny"), BenchmarkPlan(workloads, level=level))) == expected


def test_songs_need_all_graphs() -> None:
    """Of every level."""
    assert {"condition_2", "step_0", "vqvae_decode_0"} <= set(needed_graphs(preset("tiny"), BenchmarkPlan((SONG,))))


def shallow() -> JukeboxConfig:
    tiny = preset("tiny")
    stack = dataclasses.replace(tiny.priors[0].transformer, depth=1)
    return JukeboxConfig("shallow", tiny.vqvae, (dataclasses.replace(tiny.priors[0], transformer=stack),))


def test_bundles_are_made_once(tmp_path) -> None:
    """Another number of slots, or other weights, are other graphs of the same checkpoint."""
    config = shallow()
    plan = BenchmarkPlan((STEP,), level=0, slots=(1,))
    said: list[str] = []
    checkpoint, folders = prepare_bundles(config, plan, [LinearWeights.AS_PRECISION], tmp_path, said.append)
    assert len(said) == 2
    assert prepare_bundles(config, plan, [LinearWeights.AS_PRECISION], tmp_path, said.append) == (checkpoint, folders)
    assert len(said) == 2
    more = dataclasses.replace(plan, slots=(1, 32))
    both = [LinearWeights.AS_PRECISION, LinearWeights.INT8]
    again, others = prepare_bundles(config, more, both, tmp_path, said.append)
    assert again == checkpoint
    assert len({*folders, *others}) == 3
    subjects = open_subjects(others, checkpoint)
    assert [variant.weight_format for variant in subjects.engines] == ["fp32", "int8"]
    assert subjects.first.graphs["step_0"].range("B").maximum == 32


def test_other_code_that_makes_weights_makes_other_checkpoints(tmp_path, monkeypatch) -> None:
    package = tmp_path / "package"
    made: list[Path] = []
    for text in ("seed = 0", "seed = 0", "seed = 1"):
        (package / "checkpoints").mkdir(parents=True, exist_ok=True)
        (package / "checkpoints" / "random_bundle.py").write_text(text)
        monkeypatch.setattr(preset_bundles, "_PACKAGE", package)
        preset_bundles._source_digest.cache_clear()
        plan = BenchmarkPlan((STEP,), level=0, slots=(1,))
        made.append(prepare_bundles(shallow(), plan, [], tmp_path / "work")[0])
    preset_bundles._source_digest.cache_clear()
    assert made[0] == made[1] != made[2]


def test_quality_is_measured_only_if_asked_for(tmp_path) -> None:
    """And a bundle without it does not pass for one with it."""
    config, plan = shallow(), BenchmarkPlan((STEP,), level=0, slots=(1,))
    _, plain = prepare_bundles(config, plan, [LinearWeights.INT8], tmp_path)
    _, judged = prepare_bundles(config, plan, [LinearWeights.INT8], tmp_path, quality=True)
    assert plain != judged
    qualities = [quantised_weights(open_bundle(folder).manifest)[0]["quality"] for folder in (*plain, *judged)]
    assert qualities[0] is None
    assert qualities[1]["mean_kl_nats"] > 0
