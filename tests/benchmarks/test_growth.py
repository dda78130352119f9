"""Sizes along an axis: what changes, and that nothing else does."""

from __future__ import annotations

import dataclasses

import pytest

from jukebox_deploy.benchmarks.growth import VALUES, Growth, measure_growth, usual_values
from jukebox_deploy.benchmarks.measurement import Instruments
from jukebox_deploy.benchmarks.plan import BenchmarkPlan
from jukebox_deploy.benchmarks.results import Backend, WorkloadKind
from jukebox_deploy.benchmarks.workload_groups import Axis
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.presets import preset

PLAN = BenchmarkPlan(slots=(1,), steps=2, baselines=(Backend.EAGER_STATIC,))
MID = preset("mid").priors[0]


@pytest.mark.parametrize("axis", [Axis.CONTEXT, Axis.WIDTH, Axis.DEPTH])
def test_one_size_changes_and_the_name_says_so(axis: Axis) -> None:
    """The rest of the stack is the preset's."""
    steps = Growth("mid", axis, VALUES[axis], PLAN).measurements()
    assert [getattr(config.priors[0].transformer, axis) for config, _ in steps] == list(VALUES[axis])
    own = getattr(MID.transformer, axis)  # at which the model is the preset itself
    names = [config.name for config, _ in steps]
    assert names == ["mid" if value == own else f"mid-{axis}-{value}" for value in VALUES[axis]]
    for config, plan in steps:
        stack = config.priors[0].transformer
        same = {"context", "width", "depth"} - {axis}
        assert all(getattr(stack, name) == getattr(MID.transformer, name) for name in same)
        assert plan.workloads == (WorkloadKind.STEP,)


def test_blocks_and_their_length_grow_with_the_root_of_the_context() -> None:
    """As in the released upsamplers: 128 blocks of 64."""
    steps = Growth("mid", Axis.CONTEXT, (1024, 8192, 16384), PLAN).measurements()
    shapes = [(c.priors[0].transformer.block_count, c.priors[0].transformer.block_length) for c, _ in steps]
    assert shapes == [(32, 32), (128, 64), (128, 128)]


def test_slots_positions_lengths_and_songs_are_of_one_model() -> None:
    """Only the plan changes."""
    ((_, slots),) = Growth("mid", Axis.SLOTS, (1, 64), PLAN).measurements()
    assert slots.slots == (1, 64)
    positions = Growth("mid", Axis.POSITION, (0, 512), PLAN).measurements()
    assert [(config.name, plan.position) for config, plan in positions] == [("mid", 0), ("mid", 512)]
    lengths = Growth("tiny", Axis.LENGTH, (2, 4), PLAN).measurements()
    assert [(plan.seconds, plan.workloads) for _, plan in lengths] == [
        (2.0, (WorkloadKind.SONG,)),
        (4.0, (WorkloadKind.SONG,)),
    ]
    songs = Growth("tiny", Axis.SONGS, (1, 8), dataclasses.replace(PLAN, slots=(4,), seconds=2.0)).measurements()
    assert [(plan.songs, plan.slots, plan.seconds) for _, plan in songs] == [(1, (4,), 2.0), (8, (4,), 2.0)]


def test_a_model_of_several_priors_has_no_one_size() -> None:
    """One level of it has, if that has no lyrics."""
    with pytest.raises(ConfigError, match="single prior without lyrics"):
        Growth("tiny", Axis.WIDTH, (64,), PLAN).measurements()
    assert Growth("tiny", Axis.DEPTH, (2,), dataclasses.replace(PLAN, level=0)).measurements()


def test_positions_are_those_of_the_presets_window() -> None:
    """With room for the steps; of several priors, those of the shortest window."""
    assert usual_values("mid", Axis.POSITION, PLAN) == (0, 512, 1024, 2048, 4096, 6144, 8064)
    long = dataclasses.replace(PLAN, steps=64)
    assert usual_values("tiny", Axis.POSITION, dataclasses.replace(long, level=0)) == (0, 64, 128, 256, 512, 768, 960)
    assert usual_values("tiny", Axis.POSITION, long)[-2:] == (384, 448)  # of 512 at the top
    assert usual_values("mid", Axis.DEPTH, PLAN) == VALUES[Axis.DEPTH]
    with pytest.raises(ConfigError, match=r"600 steps do not fit .* has 512 positions; give at most 512"):
        usual_values("tiny", Axis.POSITION, dataclasses.replace(PLAN, steps=600))


@pytest.mark.parametrize(
    ("name", "axis", "values", "level", "message"),
    [
        ("tiny", Axis.POSITION, (0, 1024), 0, "position 1024 do not fit"),
        ("mid", Axis.SONGS, (1, 2), None, "cannot sample songs"),
        ("tiny", Axis.LENGTH, (1, 2), 1, "--level 1: a song is sampled at every level"),
    ],
)
def test_values_that_do_not_fit_are_refused_before_anything_is_made(
    name, axis, values, level, message, tmp_path
) -> None:
    """However many would fit before them."""
    sweep = Growth(name, axis, values, dataclasses.replace(PLAN, level=level))
    with pytest.raises(ConfigError, match=message):
        next(measure_growth(sweep, [LinearWeights.AS_PRECISION], tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_positions_are_measured_over_one_bundle(tmp_path) -> None:
    """A result for each."""
    sweep = Growth("tiny", Axis.POSITION, (0, 700), dataclasses.replace(PLAN, level=0))
    instruments = Instruments(probe=lambda size: 1e9)
    results = list(measure_growth(sweep, [LinearWeights.AS_PRECISION], tmp_path, instruments=instruments))
    assert [result.workload.position for result in results] == [0, 700]
    assert len(list(tmp_path.iterdir())) == 2
