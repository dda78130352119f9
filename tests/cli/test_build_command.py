"""`build`: engines from a bundle or one graph of it, and a sentence for everything else."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.cuda_device import CudaDevice
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt import build as tensorrt_build
from jukebox_deploy.engines.tensorrt.capabilities import set_compute_capabilities
from jukebox_deploy.engines.tensorrt.flavour import shared_logger
from tests.engines import handmade_prior
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
    assert re.search(r"Peak memory of a building process: [\d.]+ [MG]B\.", result.output)
    manifest = open_bundle(tmp_path / "engines").manifest
    assert {entry.compute_capabilities for entry in manifest.graphs.values()} == {("8.6", "12.0")}


def test_one_graph_as_json(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = build(source / "step_0.onnx", "--out", tmp_path / "engines", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert [graph["graph"] for graph in summary["graphs"]] == ["step_0"]
    assert "1 engine in" in build(source / "step_0.onnx", "--out", tmp_path / "again").stdout
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
    stray = source / "stray.onnx"
    stray.write_bytes((source / "step_0.onnx").read_bytes())
    out = ("--out", tmp_path / "engines")
    assert "needs --out DIR" in refusal(build(source))
    assert "there is no manifest.json" in refusal(build(tmp_path / "nowhere", *out))
    assert "stray.onnx is not a graph of the bundle" in refusal(build(stray, *out))
    assert "has no graph step_9; it has step_0 and vqvae_decode_0" in refusal(build(source, *out, "--graphs", "step_9"))
    for odd in ("ampere", "08.6"):
        refused = build(source, *out, "--compute", f"8.6,{odd}")
        assert refused.exit_code == 2
        assert f"'{odd}' is no compute capability; write them like 8.6." in refusal(refused)
    assert not (tmp_path / "engines").exists()


def exported_graphs(checkpoint: CheckpointBundle, tmp_path: Path, *arguments: str) -> EngineBundle:
    """What a build leaves with `--keep-onnx`; without tensorrt-rtx there is nothing to show."""
    pytest.importorskip("tensorrt_rtx")
    folders = ("--out", tmp_path / "engines", "--keep-onnx", tmp_path / "kept")
    result = build(checkpoint.folder, "--graphs", "step_0,condition_0", *folders, *arguments)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"engines", "kept"}
    assert ", that of the export included where one process does both." in " ".join(result.output.split())
    return open_bundle(tmp_path / "kept")


def test_a_checkpoint_is_exported_and_built(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    graphs = exported_graphs(tiny_checkpoint, tmp_path, "--precision", "fp8", "--slots", "4", "--compute", "8.9")
    engines = open_bundle(tmp_path / "engines").manifest
    assert (engines.precision, engines.linear_weights, engines.target) == ("fp16", "fp8", Target.TENSORRT_RTX)
    # Graphs stay variable, engines are for what was asked: no step is built for one slot alone.
    assert {(r.minimum, r.maximum) for r in graphs.graphs["step_0"].ranges} == {(1, 4)}
    assert {(r.minimum, r.maximum) for r in engines.graphs["step_0"].spec.ranges} == {(4, 4)}
    assert engines.graphs["step_0"].options["quantised_weights"]["weights"] == "fp8"
    assert engines.checkpoint == tiny_checkpoint.fingerprint()


def test_engines_for_one_slot_come_of_graphs_for_more(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    graphs = exported_graphs(tiny_checkpoint, tmp_path, "--no-validate", "--slots", "1", "--compute", "8.9")
    engines = open_bundle(tmp_path / "engines").manifest
    assert {(r.minimum, r.maximum) for r in graphs.graphs["step_0"].ranges} == {(1, 2)}
    assert {(r.minimum, r.maximum) for r in engines.graphs["step_0"].spec.ranges} == {(1, 1)}


def test_graphs_in_parts_become_engines_in_parts(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    exported_graphs(tiny_checkpoint, tmp_path, "--parts", "2", "--no-validate", "--slots", "1,2")
    engines = open_bundle(tmp_path / "engines")
    step = engines.manifest.graphs["step_0"]
    assert [part.file for part in step.parts] == ["step_0_part_0.engine", "step_0_part_1.engine"]
    assert step.options["profiles"] == 2
    assert len(step.options["onnx_sha256"]) == 2
    assert {path.name for path in engines.paths.values()} == {"condition_0.engine"} | {
        f"{kind}_0_part_{part}.engine" for kind in ("step", "prefill") for part in (0, 1)
    }


def test_graphs_that_nobody_keeps_are_gone(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path / "engines"
    result = build(tiny_checkpoint.folder, "--graphs", "condition_0", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["engines"]


def test_onnx_runtime_gets_the_graphs_of_a_checkpoint(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    arguments = ("--target", "onnxruntime", "--graphs", "condition_0", "--out", tmp_path / "graphs")
    result = build(tiny_checkpoint.folder, *arguments)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "condition_0 condition_0.onnx, prior_0.weights" in words
    assert "hashes" not in words
    assert open_bundle(tmp_path / "graphs").manifest.precision == "fp32"


def test_what_a_gpu_cannot_run_is_said_before_the_export(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    arguments = ("--out", tmp_path / "engines", "--compute", "8.6,8.9", "--precision", "fp8", "--graphs", "step_0")
    message = refusal(build(tiny_checkpoint.folder, *arguments))
    assert "compute capability 8.6 cannot run fp8 weights: store them as int8 or int4, or leave it out." in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--precision", "fp32"], "--precision"),
        (["--precision", "int8"], "--precision"),
        (["--weights", "fp8"], "--weights"),
        (["--keep", "layers.0"], "--keep"),
        (["--calibrate", "self"], "--calibrate"),
        (["--max-kl", "0"], "--max-kl"),
        (["--no-logits"], "--no-logits"),
        (["--no-measure-quality"], "--no-measure-quality"),
        (["--parts", "2"], "--parts"),
        (["--no-validate"], "--no-validate"),
        (["--keep-onnx", "x"], "--keep-onnx"),
    ],
)
def test_what_an_export_decided_stays_so(source: Path, tmp_path: Path, arguments: list[str], named: str) -> None:
    message = refusal(build(source, "--out", tmp_path / "engines", *arguments))
    assert f"{named} can change nothing" in message


def test_a_precision_alone_is_one_without_quantised_weights(tmp_path: Path) -> None:
    source = handmade_prior.save_integers(tmp_path / "onnx")
    precision = ("--precision", str(source.manifest.precision))
    arguments = (source.folder, "--target", "onnxruntime", *precision)
    message = " ".join(refusal(build(*arguments)).split())
    assert f"in {precision[1]} with weights as {source.manifest.linear_weights}: --precision can change" in message
    result = build(*arguments, "--weights", str(source.manifest.linear_weights))
    assert result.exit_code == 0, result.output


def test_what_says_the_same_as_the_export_is_taken(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    same = ("--precision", "fp16", "--weights", "precision", "--parts", "4GB")
    assert build(source, "--out", tmp_path / "engines", "--graphs", "step_0", *same).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "onnxruntime", "--compute", "8.9"], "--compute is for engines of TensorRT"),
        (["--target", "onnxruntime", "--feature", "refit"], "--feature is for engines of TensorRT"),
        (["--skip-refused"], "--skip-refused is for the GPUs that --compute lists"),
        (["--precision", "int8", "--weights", "int4"], "contradict each other"),
        (["--slots", "0,4"], "give numbers from 1 on"),
        (["--out", ""], "an empty name"),
        (["--keep-onnx", ""], "an empty name"),
        (["--slots", ""], "an empty list; name something, or leave the option out"),
        (["--compute", ""], "an empty list; name something, or leave the option out"),
        (["--parts", "0"], "neither a number of parts nor a size like 4GB"),
        (["--parts", "0GB"], "neither a number of parts nor a size like 4GB"),
        (["--max-kl", "nan"], "nan is no usual number"),
        (["--target", "onnxruntime", "--slots", "99"], "--slots is for an export or for engines of TensorRT"),
        (["--target", "onnxruntime", "--processes", "3"], "--processes is for an export or for engines of TensorRT"),
    ],
)
def test_choices_that_cannot_be(source: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in " ".join(refusal(build(source, "--out", tmp_path / "engines", *arguments)).split())


def test_choices_that_a_source_leaves_no_room_for(source: Path, tmp_path: Path) -> None:
    step = build(source / "step_0.onnx", "--out", tmp_path / "engines", "--graphs", "nonsense")
    assert "is one graph, so --graphs has nothing to choose" in " ".join(refusal(step).split())
    for arguments in (["--graphs", "nonsense"], ["--force"]):
        message = refusal(build(source, "--target", "onnxruntime", *arguments))
        assert f"{arguments[0]} is for a copy that opens sooner, which needs --out DIR" in message


def test_what_cannot_be_built_is_said_before_the_export(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words that it had after the export."""
    pytest.importorskip("tensorrt_rtx")

    def never(*_: object) -> None:
        raise AssertionError("nothing is to be exported")

    monkeypatch.setattr("jukebox_deploy.jobs.build_job.export_bundle", never)
    out = tmp_path / "engines"
    for arguments, message in (
        (["--compute", "8.9,9.0"], "tensorrt-rtx cannot build for compute capability 9.0; it knows 7.5, 8.0, "),
        (["--timing-caches", str(tmp_path / "times")], "leave --timing-caches out"),
        (["--feature", "refit", "--compute", "8.6,8.9"], "--feature refit is for one GPU only, and --compute asks for"),
        (["--keep-onnx", str(out)], "is to be the folder of the engines"),
        (["--keep-onnx", str(out / "onnx")], "is to be the folder of the engines"),
        (["--keep-onnx", str(tmp_path)], "neither may be inside the other"),
    ):
        found = refusal(build(tiny_checkpoint.folder, "--out", out, "--graphs", "condition_0", *arguments))
        assert message in " ".join(found.split())
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / "notes").touch()
    found = refusal(build(tiny_checkpoint.folder, "--out", out, "--graphs", "condition_0"))
    assert "engines: already there and not empty; remove it or choose another folder" in found
    found = refusal(build(tiny_checkpoint.folder, "--out", tmp_path / "new", "--keep-onnx", out))
    assert "engines: already there and not empty" in found
    (out / "manifest.json").touch()
    found = refusal(build(tiny_checkpoint.folder, "--out", tmp_path / "new", "--keep-onnx", out))
    assert "engines already holds exported graphs: build from them instead of the checkpoint" in found
    beside_a_file = ("--out", out / "notes" / "new", "--keep-onnx", tmp_path / "kept")
    found = refusal(build(tiny_checkpoint.folder, *beside_a_file, "--graphs", "condition_0"))
    assert "could not be written: a part of this path is a file" in found


def test_the_summary_says_once_which_gpu_was_left_out(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = build(source, "--out", tmp_path / "engines", "--compute", "8.9,9.9", "--skip-refused")
    assert result.exit_code == 0, result.output
    words = " ".join(result.stdout.split())
    assert words.count("9.9") == 1
    assert "step_0 and vqvae_decode_0: compute capability 9.9 has no name in tensorrt-rtx, which knows 7.5," in words


def test_features_are_tried_once_and_before_the_export(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    tried: list[object] = []
    for module in ("jobs.build_job", "engines.tensorrt.bundle"):
        monkeypatch.setattr(f"jukebox_deploy.{module}.try_build", lambda *given: tried.append(given))
    arguments = ("--graphs", "condition_0", "--no-validate", "--feature", "version-compatible")
    result = build(tiny_checkpoint.folder, "--out", tmp_path / "engines", *arguments)
    assert result.exit_code == 0, result.output
    assert len(tried) == 1


@pytest.mark.parametrize("feature", ["refit", "stripped"])
def test_what_needs_a_gpu_is_said_before_the_export(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str
) -> None:
    pytest.importorskip("tensorrt_rtx")
    exports: list[object] = []
    monkeypatch.setattr("jukebox_deploy.jobs.build_job.export_bundle", lambda *given: exports.append(given))
    result = build(tiny_checkpoint.folder, "--out", tmp_path / "engines", "--feature", feature)
    assert result.exit_code
    try:
        CudaDevice().close()
    except NoDeviceError:
        assert "Stripping and refitting of weights needs a GPU on the building machine" in result.output
        assert exports == []


def test_a_flavour_for_the_gpu_at_hand_takes_no_others(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That flavour is not installed, so the other one plays it, with a configuration that asks for no GPUs."""
    monkeypatch.setitem(sys.modules, "tensorrt", pytest.importorskip("tensorrt_rtx"))

    def without_names(trt: Any, builder_config: Any, asked: Sequence[str], target: Target) -> None:
        set_compute_capabilities(trt, object(), asked, target)

    monkeypatch.setattr(tensorrt_build, "set_compute_capabilities", without_names)
    monkeypatch.setattr(tensorrt_build, "shared_logger", lambda target: shared_logger(Target.TENSORRT_RTX))
    arguments = ("--target", "tensorrt", "--compute", "8.9", "--out", tmp_path / "engines", "--graphs", "condition_0")
    found = refusal(build(tiny_checkpoint.folder, *arguments))
    assert "tensorrt builds for the GPU of this machine only: leave out the compute capabilities" in found
    assert not list(tmp_path.iterdir())
