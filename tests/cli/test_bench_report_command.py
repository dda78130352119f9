"""`bench report` and `bench compare` as commands."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from jukebox_deploy.benchmarks.results import WorkloadResult
from jukebox_deploy.benchmarks.workload_groups import is_engine
from jukebox_deploy.cli.main import cli
from tests.benchmarks.benchmark_documents import MACHINE, RUN, SLOTS, hostile_run


def run(command, *arguments):
    return CliRunner().invoke(cli, ["bench", command, *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "run.json"
    RUN.save(path)
    return path


@pytest.fixture
def slower(tmp_path):
    """Engines half as fast at one workload, on another machine, with one workload left out."""
    path = tmp_path / "slower.json"
    first, *rest = RUN.results
    halved = [
        replace(v, units_per_second=tuple(u / 2 for u in v.units_per_second)) if is_engine(v) else v
        for v in first.variants
    ]
    results = (WorkloadResult(first.workload, tuple(halved)), *(r for r in rest if r is not SLOTS[0]))
    replace(RUN, machine=replace(MACHINE, processor="another [one]"), results=results).save(path)
    return path


class TestReport:
    def test_it_writes_a_page_and_names_it(self, document, tmp_path):
        out = tmp_path / "new" / "page.html"
        result = run("report", document, "--out", out)
        assert result.exit_code == 0, result.output
        assert result.stdout.split() == [str(out)]
        assert out.read_text().startswith("<!DOCTYPE html>")

    def test_pictures_on_demand(self, document, tmp_path):
        result = run("report", document, "--out", tmp_path / "page.html", "--png", tmp_path / "pictures")
        names = [f"run-{plot}.png" for plot in ("speed", "ratio", "latency", "cost-slots-1")]
        assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(names)
        assert [line.rpartition("/")[2] for line in result.stdout.splitlines()] == ["page.html", *names]

    def test_files_of_one_name_are_told_apart_by_their_folders(self, document, tmp_path):
        files = [tmp_path / "old" / "cpu" / "mid.json", tmp_path / "new" / "cpu" / "mid.json"]
        for number, file in enumerate(files):
            file.parent.mkdir(parents=True)
            replace(RUN, machine=replace(MACHINE, processor=f"processor {number}")).save(file)
        result = run("report", document, *files, "--out", tmp_path / "page.html", "--png", tmp_path / "pictures")
        assert result.exit_code == 0, result.output
        speeds = {path.name for path in (tmp_path / "pictures").glob("*-speed.png")}
        assert speeds == {"run-speed.png", "old-cpu-mid-speed.png", "new-cpu-mid-speed.png"}

    def test_one_file_twice_is_refused(self, document, tmp_path):
        result = run("report", document, document, "--out", tmp_path / "page.html")
        assert result.exit_code == 2
        assert "two files are called" in result.output
        assert not (tmp_path / "page.html").exists()

    def test_another_file_leaves_no_page(self, tmp_path):
        (tmp_path / "other.json").write_text("{}")
        result = run("report", tmp_path / "other.json", "--out", tmp_path / "page.html")
        assert result.exit_code == 1
        assert "other.json has the format None" in result.stderr
        assert not (tmp_path / "page.html").exists()

    @pytest.mark.parametrize("arguments", [[], ["x.json"]])
    def test_files_and_out_are_asked_for(self, arguments):
        assert run("report", *arguments).exit_code == 2


class TestCompare:
    def test_people_get_a_table(self, document, slower):
        result = run("compare", document, slower)
        assert result.exit_code == 0
        for words in (
            "processor: a processor before, another [one] after",
            "slower",
            "0.500",
            "Only in A: Step of small",
            "eager fp32 itself was 1.00\N{MULTIPLICATION SIGN} as fast",
            "2.00 \N{MULTIPLICATION SIGN} eager fp32",
        ):
            assert words in result.stdout
        last = result.stdout.splitlines()[-1]
        assert last == "0 faster, 2 slower, 4 no clear change; 2 of A without a counterpart."

    def test_a_slower_machine_is_told_and_is_no_failure(self, tmp_path):
        paths = [tmp_path / name for name in ("a.json", "b.json")]
        for path, factor in zip(paths, (1.0, 0.31), strict=True):
            first, _, _, *rest = RUN.results
            slowed = [
                replace(v, units_per_second=tuple(factor * u for u in v.units_per_second)) for v in first.variants
            ]
            replace(RUN, results=(WorkloadResult(first.workload, tuple(slowed)), *rest)).save(path)
        result = run("compare", *paths, "--fail-on-slower")
        assert result.exit_code == 0
        assert (
            "the machine was 0.310\N{MULTIPLICATION SIGN} as fast, by eager fp32; all variants moved" in result.stdout
        )

    def test_programs_get_json(self, document, slower):
        data = json.loads(run("compare", slower, document, "--json").stdout)
        assert [change["verdict"] for change in data["changes"][:2]] == ["faster"] * 2
        assert len(data["only_after"]) == 2

    def test_slower_can_be_a_failure(self, document, slower):
        assert run("compare", document, slower, "--fail-on-slower").exit_code == 1
        assert run("compare", slower, document, "--fail-on-slower").exit_code == 0

    def test_too_few_rounds_are_no_success(self, document):
        result = run("compare", document, document, "--fail-on-slower")
        assert result.exit_code == 1
        assert "too few rounds to distinguish changes of 8 results from chance" in result.stderr

    def test_a_run_that_was_stopped_is_told(self, document, tmp_path):
        replace(RUN, complete=False).save(tmp_path / "stopped.json")
        assert "Warning: B was stopped before its end" in run("compare", document, tmp_path / "stopped.json").stdout

    def test_the_threshold_is_in_percent(self, document, slower):
        result = run("compare", document, slower, "--threshold", "150", "--fail-on-slower")
        assert result.exit_code == 0
        assert "0 slower" in result.stdout

    @pytest.mark.parametrize("threshold", ["nan", "inf", "-1"])
    def test_a_threshold_is_a_number(self, document, threshold):
        result = run("compare", document, document, "--threshold", threshold)
        assert result.exit_code == 2
        assert "--threshold" in result.output

    def test_nothing_in_common_is_said(self, document, tmp_path):
        replace(RUN, results=()).save(tmp_path / "empty.json")
        result = run("compare", document, tmp_path / "empty.json")
        assert result.exit_code == 0
        assert "0 faster, 0 slower" in result.stdout
        assert "of A without a counterpart." in result.stdout

    def test_nothing_in_common_is_no_success(self, document, tmp_path):
        replace(RUN, results=()).save(tmp_path / "empty.json")
        result = run("compare", document, tmp_path / "empty.json", "--fail-on-slower")
        assert result.exit_code == 1
        assert "nothing to compare" in result.stderr

    def test_hostile_names_are_printed_as_they_are(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps(hostile_run().to_json()))
        result = run("compare", tmp_path / "a.json", tmp_path / "a.json")
        assert result.exit_code == 0
        assert "\x00" not in result.stdout
        assert "\u202e" not in result.stdout
