"""`verify`: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.verification import ladder as verify_ladder
from tests.damaged_bundles import with_flipped_weight
from tests.engines import fake_tensorrt

GRAPHS = "vqvae_decode_2,prefill_1,step_1"


def verify(bundle, checkpoint, *arguments):
    command = ["verify", str(bundle), "--against", str(checkpoint), "--graphs", GRAPHS, *arguments]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


def test_a_sound_bundle_gets_a_table_with_a_row_per_check(tiny_engine_bundle, tiny_checkpoint):
    result = verify(tiny_engine_bundle.folder, tiny_checkpoint.folder)
    assert result.exit_code == 0, result.output
    assert "every hash matches" in result.output
    assert "11 checks: 11 passed, 0 failed, 0 not run." in result.output
    rows = [line.split()[0] for line in result.output.splitlines() if line.rstrip().endswith("passed")]
    singly = ["vqvae_decode_2"] * 2 + ["prefill_1"] * 2 + ["step_1"] * 2
    assert rows == [*singly, "vqvae_decode_2", *["step_1"] * 4]


def test_json_is_one_document_and_the_file_has_the_same(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    out = tmp_path / "report.json"
    result = verify(tiny_engine_bundle.folder, tiny_checkpoint.folder, "--json", "--out", str(out))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["outcomes"] == {"passed": 11, "failed": 0, "not run": 0}
    assert json.loads(out.read_text()) == report


def test_a_changed_weight_is_an_error_with_a_report(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    weight = "core.transformer.layers.0.mlp.expand.weight"
    damaged = with_flipped_weight(tiny_engine_bundle, tmp_path / "damaged", "step_1", weight)
    result = verify(damaged.folder, tiny_checkpoint.folder, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    failed = [check for check in report["checks"] if check["outcome"] == "failed"]
    assert {check["graph"] for check in failed} <= {"prefill_1", "step_1"}
    assert any(not row["holds"] for check in failed for row in check["tensors"])
    assert "disagrees with its checkpoint" in result.stderr
    assert "allowed" in result.stderr  # tensor by tensor
    assert "the difference starts in core.transformer.layers.0.mlp.expand (" in result.stderr


def test_the_report_can_be_kept_in_the_bundle_and_read_as_a_page(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    weight = "core.transformer.layers.0.mlp.expand.weight"
    damaged = with_flipped_weight(tiny_engine_bundle, tmp_path / "damaged", "step_1", weight)
    page = tmp_path / "page.html"
    assert verify(damaged.folder, tiny_checkpoint.folder, "--record", "--page", str(page)).exit_code == 1
    assert "starts in core.transformer.layers.0.mlp.expand" in page.read_text()
    assert (damaged.folder / "verification.html").read_text() == page.read_text()
    recorded = open_bundle(damaged.folder).manifest
    assert recorded.parity is not None
    assert damaged.manifest.parity is not None
    assert recorded.parity["verification"]["outcomes"]["failed"] > 0
    assert recorded.parity["graphs"] == damaged.manifest.parity["graphs"]
    assert recorded.files == damaged.manifest.files


class TestEnginesThatCannotRun:
    """On a machine without a GPU, nothing in a bundle of engines is verified, whatever its graphs say."""

    @pytest.fixture
    @staticmethod
    def engines(tiny_engine_bundle, tmp_path, monkeypatch):
        def open_platform(target, options):
            raise NoDeviceError("there is no GPU here. Install it: pip install cuda-bindings")

        monkeypatch.setattr("jukebox_deploy.engines.tensorrt.engine.open_platform", open_platform)
        return fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines").folder

    def test_the_exit_code_says_so(self, engines, tiny_checkpoint):
        result = verify(engines, tiny_checkpoint.folder)
        assert result.exit_code == 3
        assert "3 checks: 0 passed, 0 failed, 3 not run." in result.stdout
        assert "engines is not verified: nothing in it ran on this machine" in result.stderr

    def test_also_where_the_graphs_agree(self, engines, tiny_engine_bundle, tiny_checkpoint):
        result = verify(engines, tiny_checkpoint.folder, "--onnx", str(tiny_engine_bundle.folder), "--json")
        assert result.exit_code == 3
        report = json.loads(result.stdout)
        assert report["outcomes"]["passed"] > 5
        assert report["ran_engines"] is False

    def test_a_difference_of_the_graphs_is_a_failure(self, tiny_engine_bundle, tiny_checkpoint, engines, tmp_path):
        weight = "core.transformer.layers.0.mlp.expand.weight"
        damaged = with_flipped_weight(tiny_engine_bundle, tmp_path / "damaged", "step_1", weight)
        shutil.rmtree(engines)
        fake_tensorrt.save_engines(damaged, engines)
        result = verify(engines, tiny_checkpoint.folder, "--onnx", str(damaged.folder))
        assert result.exit_code == 1
        assert "disagrees with its checkpoint" in result.stderr

    def test_what_was_recorded_is_not_taken_for_agreement(self, engines, tiny_checkpoint):
        assert verify(engines, tiny_checkpoint.folder, "--record").exit_code == 3
        shown = CliRunner().invoke(cli, ["inspect", str(engines)], catch_exceptions=False).stdout
        assert (
            "parity: verify recorded 0 passed, 0 failed, 3 not run; nothing in the bundle ran, so it is not verified"
            in " ".join(shown.split())
        )

    def test_the_reason_and_the_hint_are_two_sentences(self, engines, tiny_checkpoint):
        report = json.loads(verify(engines, tiny_checkpoint.folder, "--json").stdout)
        assert "pip install cuda-bindings. With --onnx, the graphs" in report["checks"][0]["reason"]


def test_a_bundle_that_cannot_be_written_is_named_before_the_comparison(
    tiny_engine_bundle, tiny_checkpoint, monkeypatch
):
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    result = verify(tiny_engine_bundle.folder, tiny_checkpoint.folder, "--record")
    assert result.exit_code == 2
    assert "cannot be written to; write the report elsewhere" in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_report_that_cannot_be_kept_is_printed(tiny_engine_bundle, tiny_checkpoint, monkeypatch):
    def write_page(path, report):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("jukebox_deploy.cli.verify_page.write_page", write_page)
    result = verify(tiny_engine_bundle.folder, tiny_checkpoint.folder, "--record")
    assert result.exit_code == 1
    assert "11 checks: 11 passed, 0 failed, 0 not run." in result.stdout
    assert "Permission denied" in result.stderr


def test_a_wrong_hash_is_refused(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_engine_bundle.folder, folder)
    weights = folder / "prior_1.weights"
    weights.write_bytes(b"\1" + weights.read_bytes()[1:])
    result = verify(folder, tiny_checkpoint.folder)
    assert result.exit_code == 1
    assert "prior_1.weights is not the file of the manifest" in result.output


def test_another_checkpoint_is_refused(tiny_engine_bundle, tmp_path):
    other = write_random_bundle("tiny", tmp_path / "other", seed=1)
    result = verify(tiny_engine_bundle.folder, other.folder)
    assert result.exit_code == 1
    assert "was not made from" in result.output
    assert open_bundle(tiny_engine_bundle.folder).manifest.checkpoint[:12] in result.output


def test_a_folder_that_is_no_bundle_is_a_sentence(tiny_checkpoint, tmp_path):
    result = verify(tmp_path, tiny_checkpoint.folder)
    assert result.exit_code == 1
    assert "there is no manifest.json" in result.output


def test_the_checkpoint_is_required(tiny_engine_bundle):
    result = CliRunner().invoke(cli, ["verify", str(tiny_engine_bundle.folder)])
    assert result.exit_code == 2
    assert "--against" in result.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], None),
        (["--kernel-caches", "kernels", "--host-code"], TensorRtOptions(kernel_caches=Path("kernels"), host_code=True)),
        (["--weight-budget", "0.5"], TensorRtOptions(weight_budget=500_000_000)),
    ],
)
def test_how_engines_are_run_reaches_what_opens_them(
    tiny_engine_bundle, tiny_checkpoint, monkeypatch, arguments, expected
):
    seen = []

    def bundle_engine(bundle, onnxruntime, tensorrt):
        seen.append(tensorrt)
        raise EngineError("no engines here")

    monkeypatch.setattr(verify_ladder, "bundle_engine", bundle_engine)
    assert "no engines here" in verify(tiny_engine_bundle.folder, tiny_checkpoint.folder, *arguments).stderr
    assert seen == [expected]


def test_options_of_tensorrt_are_not_ignored_by_onnx_graphs(tiny_engine_bundle, tiny_checkpoint):
    result = verify(tiny_engine_bundle.folder, tiny_checkpoint.folder, "--host-code")
    assert result.exit_code == 1
    assert "holds ONNX graphs; drop the options of engines for TensorRT" in result.stderr
