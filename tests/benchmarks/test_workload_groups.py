"""Which results are the same work, which make a sweep, and which stands for a group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jukebox_deploy.benchmarks.results import Backend, MemoryLimit, Workload, WorkloadKind, WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import (
    Axis,
    Sweep,
    base_model,
    baseline_of,
    cost,
    distinct,
    headlines,
    ratio_over,
    same_work,
    share_of_limit,
    sweeps,
)
from jukebox_deploy.errors import ConfigError
from tests.benchmarks.benchmark_documents import BASE, DECODE, RUN, SLOTS, WIDE, step, step_result, variant


def audio(kind: WorkloadKind, slots: int, seconds: float) -> WorkloadResult:
    work = Workload(kind, "small", 0, slots, units_per_pass=seconds)
    return WorkloadResult(work, (variant(Backend.ONNXRUNTIME, 2.0),))


def sweeps_of(*results: WorkloadResult) -> list[Sweep]:
    """Of one run."""
    return sweeps({"run": results})


def test_a_sweep_differs_in_one_field_only_and_ascends():
    (found,) = sweeps_of(SLOTS[1], BASE, DECODE, SLOTS[0])
    assert found.axis is Axis.SLOTS
    assert found.values == [1, 4, 16]
    assert found.results == (BASE, *SLOTS)


def test_models_of_other_sizes_are_called_after_the_size():
    (found,) = sweeps_of(BASE, WIDE)
    assert (found.axis, found.values) == (Axis.WIDTH, [64, 128])
    assert [base_model(result.workload, Axis.WIDTH) for result in found.results] == ["small", "small"]
    assert base_model(WIDE.workload, Axis.DEPTH) == "small-width-128"
    assert sweeps_of(BASE, step_result(step("small-depth-8", width=128, depth=8), 1.0)) == []


def test_other_models_make_no_sweep_whatever_their_sizes():
    assert sweeps_of(BASE, step_result(step("other", width=128), 1.0)) == []
    deep = step_result(step("tiny-depth-24", width=96, depth=24), 1.0)
    assert sweeps_of(deep, step_result(step("mid-context-1024", width=512, depth=24), 1.0)) == []


def test_a_sweep_is_of_one_run_where_one_has_all_of_it():
    again = step_result(step(), 5.0, baselines=True)
    (found,) = sweeps({"headline": [again], "growth": [BASE, *SLOTS], "later": [again]})
    assert (found.results, found.runs) == ((BASE, *SLOTS), ("growth",))
    assert [v.name for v in found.variants] == ["onnxruntime fp32", "onnxruntime fp32, int8 weights"]
    (found,) = sweeps({"old": [BASE, *SLOTS], "new": [again, *SLOTS]})
    assert (found.results, found.runs) == ((again, *SLOTS), ("new",))


def test_what_no_run_has_alone_is_joined_and_says_so():
    again = step_result(step(), 5.0)
    (found,) = sweeps({"first": [BASE, SLOTS[0]], "second": [SLOTS[1]], "third": [again]})
    assert (found.results, found.runs) == ((BASE, *SLOTS), ("first", "second"))


def test_growth_is_over_a_variants_own_ends():
    baseline = WorkloadResult(step(slots=64), (variant(Backend.EAGER, 16.0),))
    (found,) = sweeps_of(BASE, *SLOTS, baseline)
    assert (found.ends("onnxruntime fp32"), found.is_whole("onnxruntime fp32")) == ((1, 16), False)
    assert (found.ends("eager fp32"), found.is_whole("eager fp32")) == ((1, 64), True)


def test_contexts_are_compared_at_the_same_part_of_the_window():
    longer = step_result(step("small-context-2048", context=2048, position=1024), 7.0)
    (found,) = sweeps_of(BASE, longer)
    assert (found.axis, found.values) == (Axis.CONTEXT, [1024, 2048])
    assert sweeps_of(BASE, step_result(step("small-context-2048", context=2048), 7.0)) == []


def test_a_sweep_of_positions_begins_at_zero():
    (found,) = sweeps_of(step_result(step(position=0), 8.0), BASE)
    assert (found.axis, found.values) == (Axis.POSITION, [0, 512])


def songs_of(count: int, seconds: float) -> WorkloadResult:
    """Four slots make songs of five seconds."""
    work = Workload(WorkloadKind.SONG, "small", 0, 4, units_per_pass=5.0 * count, songs=count)
    return WorkloadResult(work, (variant(Backend.ONNXRUNTIME, 5.0 * count / seconds, spread=0.0),))


def test_songs_are_counted_apart_from_slots():
    (found,) = sweeps_of(songs_of(8, 5.0), songs_of(2, 2.0), songs_of(4, 3.0))
    assert (found.axis, found.values) == (Axis.SONGS, [2, 4, 8])
    assert [spread.median for _, spread in found.costs("onnxruntime fp32")] == pytest.approx([2.0, 3.0, 5.0])
    assert found.slope("onnxruntime fp32") == pytest.approx(0.5)


def test_only_songs_are_counted():
    with pytest.raises(ConfigError, match="has 0 songs; expected 1 or more"):
        songs_of(0, 1.0)
    with pytest.raises(ConfigError, match="no number of songs for any other"):
        step(songs=2)


def test_the_length_of_a_song_does_not_depend_on_how_many_there_are():
    songs = [audio(WorkloadKind.SONG, 1, 20.0), audio(WorkloadKind.SONG, 4, 80.0), audio(WorkloadKind.SONG, 1, 60.0)]
    by_axis = {found.axis: found.values for found in sweeps_of(*songs)}
    assert by_axis == {Axis.SLOTS: [1, 4], Axis.LENGTH: [20, 60]}


def test_a_variant_that_was_measured_once_makes_no_line():
    (found,) = sweeps_of(BASE, *SLOTS)
    assert [v.name for v in found.variants] == ["onnxruntime fp32", "onnxruntime fp32, int8 weights"]


def test_cost_is_that_of_all_slots():
    four = SLOTS[0]
    assert four.variants[0].speed.median == 16.0
    assert cost(four.workload, four.variants[0]).median == pytest.approx(4 / 16.0)
    assert cost(DECODE.workload, DECODE.variants[0]).median == pytest.approx(10.0 / 3.0)


def test_growth_is_from_the_first_value_to_the_last():
    (found,) = sweeps_of(BASE, *SLOTS)
    assert found.growth("onnxruntime fp32") == pytest.approx(4.0)  # 16 times the slots at 4 times the speed


def test_the_number_of_tokens_in_a_round_does_not_matter_but_the_length_of_audio_does():
    assert same_work(step(), step(units_per_pass=64.0))
    assert not same_work(step(), step(slots=2))
    assert not same_work(DECODE.workload, replace(DECODE.workload, units_per_pass=60.0))


def test_one_result_stands_for_those_that_sweeps_connect():
    assert headlines([*SLOTS, BASE, DECODE, WIDE]) == [BASE, DECODE]


def test_every_model_has_a_headline():
    """Although their sizes make a chain: 96 wide and 24 deep, 512 wide and 24 or 72 deep, 1920 wide and 72 deep."""
    sizes = {"tiny-depth-24": (96, 24), "mid": (512, 24), "mid-depth-72": (512, 72), "upsampler": (1920, 72)}
    results = [step_result(step(name, width=width, depth=depth), 8.0) for name, (width, depth) in sizes.items()]
    assert [r.workload.model for r in headlines(results)] == ["tiny-depth-24", "mid", "upsampler"]


def test_of_the_same_work_the_fullest_counts_and_then_the_last():
    poorer = replace(BASE, variants=BASE.variants[:1])
    newer = step_result(step(), 9.0, baselines=True)
    assert distinct([BASE, poorer, DECODE]) == [BASE, DECODE]
    assert distinct([BASE, newer]) == [newer]


def test_a_baseline_has_the_same_precision_where_that_was_measured():
    engine = replace(BASE.variants[0], precision="fp16", weights="fp16")
    half = replace(variant(Backend.EAGER, 3.0, "fp16"), precision="fp16")
    both = WorkloadResult(step(), (engine, variant(Backend.EAGER, 2.0), half))
    assert baseline_of(both, engine, Backend.EAGER) is half
    assert baseline_of(BASE, engine, Backend.EAGER) is BASE.variants[2]
    assert baseline_of(BASE, engine, Backend.HUGGING_FACE) is None


def test_a_baseline_is_not_compared_with_itself():
    ratio = ratio_over(BASE, BASE.variants[0], Backend.EAGER)
    assert ratio is not None
    assert ratio.median == pytest.approx(4.0)
    assert ratio_over(BASE, BASE.variants[2], Backend.EAGER) is None


def test_the_share_of_the_limit():
    assert share_of_limit(BASE.workload, BASE.variants[0]) == pytest.approx(0.8)
    assert share_of_limit(BASE.workload, BASE.variants[2]) is None


def test_the_share_of_the_limit_is_taken_by_round_where_the_memory_was_read_after_each():
    """Half as fast where the memory was half as fast: always the same share."""
    limit = MemoryLimit(980, 20, 1000, 1e4, (1e4, 5e3, 1e4, 5e3, 5e3))
    engine = replace(BASE.variants[0], units_per_second=(8.0, 4.0, 8.0, 4.0, 4.0), limit=limit)
    assert share_of_limit(BASE.workload, engine) == pytest.approx(0.8)
    assert share_of_limit(BASE.workload, replace(engine, limit=replace(limit, rounds=()))) == pytest.approx(0.4)


def test_a_run_without_results_has_no_groups():
    assert sweeps({}) == sweeps({"empty": []}) == []
    assert headlines([]) == []
    assert len(headlines(RUN.results)) == 2
