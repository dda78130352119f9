"""Opening as a new process does it, and turns of several bundles."""

from __future__ import annotations

import json
from itertools import count
from statistics import median

import pytest

from jukebox_deploy.benchmarks import load_times
from jukebox_deploy.benchmarks.load_times import LoadTime, Opening, measure, open_once
from jukebox_deploy.errors import EngineError
from tests.engines import handmade_prior

pytest.importorskip("onnxruntime")


@pytest.fixture
def no_tables(monkeypatch):
    """Graphs made by hand are not those that a model declares."""
    monkeypatch.setattr("jukebox_deploy.jobs.opening.onnx_graphs.require_current_tables", lambda bundle: None)


def test_the_stages_of_an_opening_add_up(tmp_path, no_tables):
    bundle = handmade_prior.save(tmp_path / "bundle")
    ticks = count(11.0)
    found = open_once(Opening(str(bundle.folder), 0), 10.0, clock=lambda: next(ticks))
    assert (found.imports, found.hashes, found.open, found.first_code, found.total) == (1.0, 1.0, 1.0, 1.0, 4.0)
    assert found.cpu > 0
    assert found.peak_rss_bytes > 1 << 20


def test_hashes_are_part_of_it(tmp_path, no_tables):
    bundle = handmade_prior.save(tmp_path / "bundle")
    (bundle.folder / "step_0.onnx").write_bytes(b"x")
    with pytest.raises(EngineError, match="has 1 bytes"):
        open_once(Opening(str(bundle.folder), 0), 0.0)


def test_bundles_take_turns_and_the_first_round_is_not_counted():
    order, seconds = [], count(1.0)

    def pretend(opening):
        order.append(opening.bundle)
        now = next(seconds)
        return LoadTime(0.0, 0.0, 0.0, 0.0, now, now, 1)

    results = measure([Opening("a", 0), Opening("b", 0)], 2, pretend)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [[r["total"] for r in result["rounds"]] for result in results] == [[4.0, 5.0], [3.0, 6.0]]
    assert [result["median"]["total"] for result in results] == [median([4.0, 5.0]), median([3.0, 6.0])]


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_a_round_at_least_is_counted(tmp_path, capsys, rounds):
    with pytest.raises(SystemExit, match="2"):
        load_times.main([str(tmp_path), "--rounds", rounds, "--out", str(tmp_path / "load.json")])
    assert f"--rounds: expected a whole number, 1 or more, found {rounds}" in capsys.readouterr().err


def test_a_run_from_the_command_line(tmp_path, monkeypatch, capsys):
    bundle = handmade_prior.save(tmp_path / "bundle")
    monkeypatch.setattr(load_times, "open_in_process", lambda opening: LoadTime(1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 7))
    card = type("Card", (), {"to_json": lambda self: {"cores": 2}})
    monkeypatch.setattr("jukebox_deploy.benchmarks.machine.describe_this_machine", card)
    out = tmp_path / "load.json"
    load_times.main([str(bundle.folder), "--mapped", "--out", str(out)])
    results = json.loads(out.read_text())["results"]
    assert [result["mapped"] for result in results] == [False, True]
    assert all(len(result["rounds"]) == load_times.ROUNDS for result in results)
    assert [json.loads(line)["median"]["peak_rss_bytes"] for line in capsys.readouterr().out.splitlines()] == [7, 7]
