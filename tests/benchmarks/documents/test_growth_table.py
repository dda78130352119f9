"""The table of how cost grows, from the files of `bench growth`."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jukebox_deploy.benchmarks.documents.growth_table import GROWTH_BLOCK, NOTHING, growth_table
from jukebox_deploy.benchmarks.readme_numbers import README_BLOCK, SPEED_BLOCK, main
from jukebox_deploy.benchmarks.results import Backend, Workload, WorkloadKind, WorkloadResult
from tests.benchmarks.benchmark_documents import RUN, hostile_run, step, step_result, variant

X = "\N{MULTIPLICATION SIGN}"


def run_of(*results, date="2026-01-02T00:00:00Z"):
    return replace(RUN, date=date, results=results)


def slots(*counts, speed=8.0):
    """Speeds that grow as the root of the slots, so that a step costs as much more."""
    return [step_result(step(slots=count), speed * count**0.5, baselines=True) for count in counts]


def rows(folder):
    """Cells of the rows below the headings."""
    return [line.strip("| ").split(" | ") for line in growth_table(folder).splitlines()[2:]]


def test_engines_have_rows_and_baselines_have_none(tmp_path):
    run_of(*slots(1, 4, 16)).save(tmp_path / "small-growth-slots.json")
    first, second = rows(tmp_path)
    assert first[:3] == ["From 1 to 16 slots: a step", "small", "onnxruntime fp32"]
    assert first[3:7] == ["125 ms", "500 ms", f"4.00{X}", f"16.0{X}"]
    assert second[2] == "onnxruntime fp32, int8 weights"


def test_only_the_newest_run_along_an_axis_counts_whatever_the_files_are_called(tmp_path):
    run_of(*slots(1, 4), date="2026-01-03T00:00:00Z").save(tmp_path / "a-growth-slots.json")
    run_of(*slots(1, 16, speed=1.0), date="2026-01-02T00:00:00Z").save(tmp_path / "b-growth-slots.json")
    run_of(*slots(1, 64)).save(tmp_path / "other.json")  # no growth by its name
    assert {row[0] for row in rows(tmp_path)} == {"From 1 to 4 slots: a step"}


def test_models_along_an_axis_are_called_after_what_they_vary(tmp_path):
    depths = [step_result(step(f"mid-depth-{depth}", depth=depth), 96.0 / depth) for depth in (12, 24)]
    run_of(*depths).save(tmp_path / "mid-growth-depth.json")
    cells = rows(tmp_path)[0]
    assert cells[:2] == ["From 12 to 24 layers: a step", "mid"]
    assert cells[5:] == [f"2.00{X}", f"2.00{X}", "10.4 ms"]  # one more layer


def test_an_engine_that_was_not_measured_to_the_end_has_ends_of_its_own(tmp_path):
    first, *others = slots(1, 4, 16)
    results = [first, *(replace(result, variants=result.variants[:1]) for result in others[1:]), others[0]]
    run_of(*results).save(tmp_path / "small-growth-slots.json")
    assert [row[0] for row in rows(tmp_path)] == ["From 1 to 16 slots: a step", "From 1 to 4 slots: a step"]
    assert [row[6] for row in rows(tmp_path)] == [f"16.0{X}", f"4.00{X}"]


def test_levels_of_one_model_have_rows_each(tmp_path):
    below = [replace(result, workload=replace(result.workload, level=1)) for result in slots(1, 4)]
    run_of(*slots(1, 4), *below).save(tmp_path / "small-growth-slots.json")
    assert [row[1] for row in rows(tmp_path)] == ["small, level 0"] * 2 + ["small, level 1"] * 2


def test_a_run_that_was_stopped_is_left_out(tmp_path):
    replace(run_of(*slots(1, 4)), complete=False).save(tmp_path / "small-growth-slots.json")
    assert growth_table(tmp_path) == NOTHING


def test_positions_are_expected_to_cost_the_same(tmp_path):
    results = [step_result(step(position=position), 8.0) for position in (0, 512)]
    run_of(*results).save(tmp_path / "small-growth-position.json")
    assert growth_table(tmp_path).splitlines()[2].endswith(f"| 1.00{X} |  |  |")


def test_songs_have_a_price_each(tmp_path):
    results = [
        WorkloadResult(
            Workload(WorkloadKind.SONG, "tiny", 0, slots=4, songs=songs, units_per_pass=2.0 * songs),
            (variant(Backend.ONNXRUNTIME, 2.0),),
        )
        for songs in (1, 4)
    ]
    run_of(*results).save(tmp_path / "tiny-growth-songs.json")
    (cells,) = rows(tmp_path)
    assert cells[0] == "From 1 to 4 songs: making the songs"
    assert cells[-1] == "1.00 s"


def test_hostile_names_stay_text(tmp_path):
    (tmp_path / "hostile-growth-slots.json").write_text(json.dumps(hostile_run().to_json()))
    lines = growth_table(tmp_path).splitlines()
    assert len(lines) == 4
    assert all(line.replace("\\|", "").count("|") == 9 for line in lines)
    assert not any("<script" in line.replace("\\<", "") for line in lines)


@pytest.mark.parametrize("there", [True, False])
def test_the_page_on_speed_is_filled_where_there_is_one(tmp_path, there):
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{README_BLOCK.begin}\n{README_BLOCK.end}\n")
    page = tmp_path / GROWTH_BLOCK.document
    if there:
        page.write_text("".join(f"{block.begin}\n{block.end}\n" for block in (SPEED_BLOCK, GROWTH_BLOCK)))
    main([], tmp_path)
    assert page.exists() == there
    assert not there or page.read_text().endswith(f"{GROWTH_BLOCK.begin}\n{NOTHING}\n{GROWTH_BLOCK.end}\n")
