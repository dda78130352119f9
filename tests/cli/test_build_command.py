"""`build`: engines from a bundle or one graph of it, and a sentence for everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import open_bundle
from tests.engines.handmade_graphs import save_bundle


def build(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["build", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "onnx").folder


def refusal(result: Result) -> str:
    assert result.exit_code not in (0, None)
    assert "Traceback" not in result.output
    return result.output


def test_a_bundle(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = build(source, "--out", tmp_path / "engines", "--compute", "8.6,12.0")
    assert result.exit_code == 0, result.output
    assert "2 engines in" in result.output
    manifest = open_bundle(tmp_path / "engines").manifest
    assert {entry.compute_capabilities for entry in manifest.graphs.values()} == {("8.6", "12.0")}


def test_one_graph_as_json(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = build(source / "step_0.onnx", "--out", tmp_path / "engines", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    assert [graph["graph"] for graph in summary["graphs"]] == ["step_0"]
    assert list(open_bundle(tmp_path / "engines").graphs) == ["step_0"]


def test_force_replaces_a_bundle_only_when_the_build_went_well(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "engines"
    assert build(source, "--out", out, "--graphs", "step_0").exit_code == 0
    assert "not empty" in refusal(build(source, "--out", out))
    assert "9.9" in refusal(build(source, "--out", out, "--compute", "9.9", "--force"))
    assert list(open_bundle(out).graphs) == ["step_0"]
    assert build(source, "--out", out, "--graphs", "vqvae_decode_0", "--force").exit_code == 0
    assert list(open_bundle(out).graphs) == ["vqvae_decode_0"]
    assert {path.name for path in tmp_path.iterdir()} == {"onnx", "engines"}


def test_force_never_replaces_the_source(source: Path) -> None:
    assert "holds the input" in refusal(build(source, "--out", source, "--force"))
    assert open_bundle(source).graphs


def test_onnx_runtime_needs_no_build(source: Path) -> None:
    result = build(source, "--target", "onnxruntime")
    assert result.exit_code == 0
    assert "all hashes match" in result.output
    (source / "step_0.weights").write_bytes(b"x")
    assert "has 1 bytes" in refusal(build(source, "--target", "onnxruntime"))


def test_what_cannot_be_built(source: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    stray = source / "stray.onnx"
    stray.write_bytes((source / "step_0.onnx").read_bytes())
    out = ("--out", tmp_path / "engines")
    assert "needs --out DIR" in refusal(build(source))
    assert "is a checkpoint bundle. Export it first" in refusal(build(checkpoint, *out))
    assert "there is no manifest.json" in refusal(build(tmp_path / "nowhere", *out))
    assert "stray.onnx is not a graph of the bundle" in refusal(build(stray, *out))
    assert "has no graphs ['step_9']" in refusal(build(source, *out, "--graphs", "step_9"))
    assert "is no compute capability" in refusal(build(source, *out, "--compute", "ampere"))
    assert not (tmp_path / "engines").exists()
