"""The README's numbers are those of the result files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.documents.growth_table import GROWTH_BLOCK
from jukebox_deploy.benchmarks.readme_numbers import NOTHING, README_BLOCK, main, speed_table
from tests.benchmarks.benchmark_documents import BASE, RUN, SLOTS, WIDE_RUN, hostile_run
from tests.source_tree import REPOSITORY

X = "\N{MULTIPLICATION SIGN}"
BEGIN, END = README_BLOCK.begin, README_BLOCK.end


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return tmp_path


def save(repository, **runs):
    for name, run in runs.items():
        run.save(repository / "benchmarks" / "results" / f"{name}.json")


def released(run, model="upsampler"):
    results = tuple(replace(r, workload=replace(r.workload, model=model)) for r in run.results)
    return replace(run, results=results)


def table(repository):
    return speed_table(repository / "benchmarks" / "results", "results").splitlines()


def test_the_readme_agrees_with_the_results():
    main(["--check"], REPOSITORY)


def test_nothing_measured_nothing_claimed(repository):
    (repository / "benchmarks" / "results" / "other.json").write_text('{"date": "2026-01-01"}')
    (repository / "benchmarks" / "results" / "list.json").write_text("[]")
    assert table(repository) == [NOTHING]


def test_engines_of_headline_workloads_have_rows_and_empty_cells(repository):
    save(repository, run=RUN)
    heading, _, *rows = table(repository)
    assert heading.count("|") == 10
    assert [row.split(" | ")[1] for row in rows] == [
        "onnxruntime fp32",
        "onnxruntime fp32, int8 weights",
        "onnxruntime fp32",
    ]
    assert rows[0] == (
        "| Step of small, level 0, 1 slot, position 512 of 1,024 | onnxruntime fp32 | 8.00 tokens/s | 80 % "
        f"| 4.00{X} | 2.00{X} |  |  | a processor, 2 cores, [2026-01-02](results/run.json) |"
    )


def test_the_newest_measurement_of_a_machine_counts(repository):
    faster = replace(BASE, variants=tuple(replace(v, units_per_second=(9.0,) * 5) for v in BASE.variants))
    save(repository, a=replace(RUN, date="2026-02-01", results=(faster,)), b=RUN)
    rows = table(repository)[2:]
    assert "9.00 tokens/s" in rows[0]
    assert "[2026-02-01](results/a.json)" in rows[0]
    assert len(rows) == 3


def test_engines_of_one_workload_stay_together_whichever_run_has_them(repository):
    older = replace(RUN, results=(replace(BASE, variants=BASE.variants[:1]), RUN.results[-1]))
    newer = replace(WIDE_RUN, machine=replace(RUN.machine, python="3.12"), results=(BASE,))
    save(repository, older=older, newer=newer)
    assert [row.split(" | ")[0].split()[1] for row in table(repository)[2:]] == ["Step", "Step", "VQ-VAE"]


def test_a_run_that_was_stopped_is_left_out(repository):
    save(repository, stopped=replace(RUN, complete=False))
    assert table(repository) == [NOTHING]


def test_a_sweep_over_several_files_has_one_headline(repository):
    save(repository, slots=replace(RUN, results=(BASE, *SLOTS)), wide=WIDE_RUN)
    assert len(table(repository)) == 4


def test_the_readme_has_the_rows_of_released_models_and_the_page_on_speed_all(repository):
    (repository / "docs").mkdir()
    (repository / "docs" / "speed.md").write_text(f"{BEGIN}\n{END}\n{GROWTH_BLOCK.begin}\n{GROWTH_BLOCK.end}\n")
    save(repository, run=RUN, released=released(RUN))
    main([], repository)
    rows = {path: (repository / path).read_text().splitlines() for path in ("README.md", "docs/speed.md")}
    shown = {path: [row for row in lines if row.startswith("| Step of")] for path, lines in rows.items()}
    assert {row.split()[3] for row in shown["README.md"]} == {"upsampler,"}
    assert {row.split()[3] for row in shown["docs/speed.md"]} == {"upsampler,", "small,"}
    assert "(../benchmarks/results/" in shown["docs/speed.md"][0]


def test_the_block_is_written_once_and_then_agrees(repository):
    save(repository, run=released(RUN))
    with pytest.raises(SystemExit, match="differ from those of the result files"):
        main(["--check"], repository)
    assert "old" in (repository / "README.md").read_text()
    main([], repository)
    text = (repository / "README.md").read_text()
    assert text.startswith(f"before\n{BEGIN}\n| what")
    assert text.endswith(f"|\n{END}\nafter\n")
    main(["--check"], repository)


def test_a_damaged_result_is_named(repository):
    (repository / "benchmarks" / "results" / "broken.json").write_text("{")
    with pytest.raises(SystemExit, match=r"broken\.json"):
        main([], repository)
    (repository / "benchmarks" / "results" / "broken.json").write_text(json.dumps({**RUN.to_json(), "results": 3}))
    with pytest.raises(SystemExit, match=r"broken\.json"):
        main([], repository)


def test_what_a_file_says_stays_text(repository):
    (repository / "benchmarks" / "results" / "hostile.json").write_text(json.dumps(hostile_run().to_json()))
    rows = table(repository)
    assert all(row.replace("\\|", "").count("|") == 10 for row in rows)
    assert not any("<script" in row.replace("\\<", "") for row in rows)
