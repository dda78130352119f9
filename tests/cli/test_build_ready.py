"""`build --target onnxruntime --out`: graphs with integer weights that open sooner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.onnxruntime.build import is_ready
from tests.engines import handmade_prior

pytest.importorskip("onnxruntime")


def build(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["build", *map(str, arguments), "--target", "onnxruntime"])


def test_integer_graphs_are_made_ready(tmp_path: Path) -> None:
    source, out = handmade_prior.save_integers(tmp_path / "onnx").folder, tmp_path / "ready"
    assert "with --out, a copy that opens sooner" in build(source).output
    result = build(source, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["bundle"], [graph["graph"] for graph in summary["graphs"]]) == (
        str(out),
        list(open_bundle(out).graphs),
    )
    step = next(graph for graph in summary["graphs"] if graph["graph"] == "step_0")
    assert (step["files"], step["ready"]) == (["step_0.onnx", "prior_0.weights"], True)
    assert step["bytes"] == sum((out / file).stat().st_size for file in step["files"])
    assert "there is nothing to build" in build(out).output
    assert is_ready(open_bundle(out).manifest.graphs["step_0"])
    assert "not empty" in build(source, "--out", out).output
    again = build(source / "step_0.onnx", "--out", out, "--force")
    assert again.exit_code == 0
    words = " ".join(again.output.split())
    assert "step_0 step_0.onnx, prior_0.weights 70.9 kB yes" in words
    assert "is for ONNX Runtime; graphs: 1, 70.9 kB in all" in words
    assert "there is nothing to build" not in words
    assert list(open_bundle(out).graphs) == ["step_0"]


def test_tensorrt_builds_from_the_exported_graphs_alone(tmp_path: Path) -> None:
    source, ready = handmade_prior.save_integers(tmp_path / "onnx").folder, tmp_path / "ready"
    assert build(source, "--out", ready).exit_code == 0
    command = ["build", str(ready), "--target", "tensorrt-rtx", "--out", str(tmp_path / "engines")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert "was made ready for ONNX Runtime" in result.output
    assert not (tmp_path / "engines").exists()


def test_other_graphs_are_left_alone(tmp_path: Path) -> None:
    source = handmade_prior.save(tmp_path / "onnx").folder
    result = build(source, "--out", tmp_path / "ready")
    assert result.exit_code != 0
    assert "can be prepared, which is for int8 and int4 weights" in " ".join(result.output.split())
    assert not (tmp_path / "ready").exists()


def test_a_link_to_a_folder_stands_for_the_folder(tmp_path: Path) -> None:
    source = handmade_prior.save_integers(tmp_path / "onnx").folder
    link, folder = tmp_path / "link", tmp_path / "disk" / "ready"
    folder.parent.mkdir()
    link.symlink_to(folder)
    for force in ([], ["--force"]):
        result = build(source, "--out", link, *force)
        assert result.exit_code == 0, result.output
        assert link.is_symlink()
        assert open_bundle(folder).graphs
    assert {path.name for path in tmp_path.rglob("*") if path.name.startswith(".")} == set()
