"""A sound bundle passes every rung; a changed weight, another checkpoint or an old table does not."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.contract import Precision, Role, TensorSpec
from jukebox_deploy.engines.bundle import open_bundle
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError, ParityError
from jukebox_deploy.export.validation import LIMITS, TensorParity
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.jobs.verification.ladder import VerifyRequest, signal_to_error
from jukebox_deploy.jobs.verification.report import Check, CheckKind, Outcome, VerifyReport
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.damaged_bundles import with_changed_manifest, with_flipped_weight
from tests.engines import fake_tensorrt
from tests.export.small_models import unlabelled_config

DERIVED = (CheckKind.LOGITS, CheckKind.TOP_1)
"""What is computed from the logits of given codes, whose check says where a difference starts."""

LEVEL_0 = ("vqvae_decode_0", "condition_0", "prefill_0", "step_0")


@pytest.fixture(scope="module")
def report(tiny_engine_bundle, tiny_checkpoint) -> VerifyReport:
    return verify_bundle(tiny_engine_bundle, tiny_checkpoint, VerifyRequest(LEVEL_0, windows=2))


def test_a_sound_bundle_passes(report):
    assert [(c.graph, str(c.kind), c.outcome) for c in report.checks if c.outcome is not Outcome.PASSED] == []
    report.require()


def test_the_ladder_has_all_its_rungs(report):
    rungs = [(check.graph, check.kind) for check in report.checks]
    sizes = {graph: 1 if graph == "condition_0" else 2 for graph in LEVEL_0}  # one window is its only size
    random_inputs = [(graph, CheckKind.RANDOM_INPUTS) for graph in LEVEL_0 for _ in range(sizes[graph])]
    of_window = (CheckKind.GIVEN_CODES, CheckKind.LOGITS, CheckKind.TOP_1, CheckKind.GREEDY_CODES)
    windows = [("step_0", kind) for _ in range(2) for kind in of_window]
    assert rungs == [*random_inputs, ("vqvae_decode_0", CheckKind.SOUND), *windows]


def test_prefixes_end_in_the_middle_of_the_first_and_the_last_block(report):
    places = [check.where for check in report.checks if check.kind is CheckKind.GIVEN_CODES]
    assert places == ["B=2, 33 steps from 48", "B=2, 15 steps from 1008"]  # blocks of 32, a window of 1024


def test_given_codes_compare_the_caches_of_a_step_without_logits(tmp_path):
    checkpoint = write_random_bundle(unlabelled_config(), tmp_path / "checkpoint")
    options = ExportRequest(GraphOptions(logits=False), ("step_0",), False, TensorRtCheck.NEVER, processes=1)
    export_bundle(checkpoint, tmp_path / "onnx", options)
    checks = {check.kind: check for check in verify_bundle(open_bundle(tmp_path / "onnx"), checkpoint).checks}
    caches = {f"{what}_{i}" for what in ("key", "value") for i in range(3)}
    assert {row.tensor for row in checks[CheckKind.GIVEN_CODES].tensors} == caches
    assert checks[CheckKind.LOGITS].outcome is checks[CheckKind.TOP_1].outcome is Outcome.NOT_RUN
    assert checks[CheckKind.LOGITS].reason == "the step gives no logits; export it without --no-logits"


def test_the_report_tells_how_errors_are_spread(report):
    tensors = {row.tensor: row for check in report.checks for row in check.tensors}
    logits = tensors["logits"].statistics
    assert 0 <= logits["median absolute"] <= logits["99% absolute"] <= logits["largest absolute"]
    assert logits["largest absolute"] == pytest.approx(tensors["logits"].largest_error)
    assert tensors["present_codes"].statistics == {"share of equal": 1.0}


def test_the_report_is_plain_data(report):
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["outcomes"] == {"passed": len(report.checks), "failed": 0, "not run": 0}
    assert data["files"]["step_0.onnx"] == report.files["step_0.onnx"]
    assert data["checks"][0]["graph"] == "vqvae_decode_0"
    assert data["checks"][0]["limit"] == 1e-5


@pytest.mark.parametrize(
    ("graph", "tensor", "kinds"),
    [
        ("step_1", "core.transformer.layers.0.mlp.expand.weight", {CheckKind.RANDOM_INPUTS, CheckKind.GIVEN_CODES}),
        # Nothing of the last layer's MLP is in a cache.
        ("step_1", "core.transformer.layers.2.mlp.expand.weight", {CheckKind.GREEDY_CODES, CheckKind.LOGITS}),
        ("vqvae_decode_2", "decoders.2.output.weight", {CheckKind.RANDOM_INPUTS, CheckKind.SOUND}),
    ],
)
def test_a_flipped_weight_is_found(tiny_engine_bundle, tiny_checkpoint, tmp_path, graph, tensor, kinds):
    bundle = with_flipped_weight(tiny_engine_bundle, tmp_path / "bundle", graph, tensor)
    needed = ("prefill_1", "step_1") if graph == "step_1" else (graph,)
    report = verify_bundle(bundle, tiny_checkpoint, VerifyRequest(needed))
    failed = [check for check in report.checks if check.outcome is Outcome.FAILED]
    assert kinds <= {check.kind for check in failed}
    searched = [check for check in failed if check.graph == graph and check.kind not in DERIVED]
    assert {check.origin.partition(" (")[0] for check in searched} == {
        f"the difference starts in {tensor.removesuffix('.weight')}"
    }
    with pytest.raises(ParityError, match=r"disagrees with its checkpoint in \d of \d checks"):
        report.require()


def test_logits_are_compared_as_probabilities_over_as_many_codes_as_asked_for(tmp_path, monkeypatch):
    config = unlabelled_config()
    checkpoint = write_random_bundle(config, tmp_path / "checkpoint")
    options = ExportRequest(GraphOptions(logits=True), ("step_0",), False, TensorRtCheck.NEVER, processes=1)
    export_bundle(checkpoint, tmp_path / "onnx", options)
    bundle = open_bundle(tmp_path / "onnx")
    report = verify_bundle(bundle, checkpoint, VerifyRequest(steps=1000, whole_windows=True))
    check, whole = [check for check in report.checks if check.kind is CheckKind.LOGITS]
    assert (whole.where, whole.outcome) == ("B=2, 48 steps from 0", Outcome.PASSED)
    assert check.where == "B=2, 35 steps from 12"  # to the end of the window
    assert check.limit == LIMITS[Precision.FP32].mean_kl
    assert 0 <= check.value < check.limit
    monkeypatch.setitem(LIMITS, Precision.FP32, replace(LIMITS[Precision.FP32], mean_kl=-1.0))
    with pytest.raises(ParityError, match=r"step_0, logits at .*: nats of mean KL"):
        verify_bundle(bundle, checkpoint).require()


def test_another_checkpoint_is_refused(tiny_engine_bundle, tmp_path):
    other = write_random_bundle("tiny", tmp_path / "other", seed=1)
    with pytest.raises(EngineError, match=r"was not made from .*other: that checkpoint has the fingerprint"):
        verify_bundle(tiny_engine_bundle, other)


def test_tables_of_another_version_are_refused(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    entry = tiny_engine_bundle.manifest.graphs["condition_0"]
    tensors = (*entry.spec.tensors, TensorSpec("mood", "int64", ("B",), Role.INPUT))
    changed = dataclasses.replace(entry, spec=dataclasses.replace(entry.spec, tensors=tensors))
    graphs = {**tiny_engine_bundle.manifest.graphs, "condition_0": changed}
    bundle = with_changed_manifest(tiny_engine_bundle, tmp_path / "bundle", graphs=graphs)
    with pytest.raises(EngineError, match="the tables of condition_0 are not those of this version"):
        verify_bundle(bundle, tiny_checkpoint)


def test_unknown_graphs_are_refused(tiny_engine_bundle, tiny_checkpoint):
    with pytest.raises(EngineError, match=r"has no graph step_7; it has vqvae_encode_0, "):
        verify_bundle(tiny_engine_bundle, tiny_checkpoint, VerifyRequest(("step_7",)))


def test_engines_are_not_run_without_a_gpu(tiny_engine_bundle, tiny_checkpoint, tmp_path, monkeypatch):
    def open_platform(target, options):
        raise NoDeviceError("there is no GPU on this machine.")

    monkeypatch.setattr("jukebox_deploy.engines.tensorrt.engine.open_platform", open_platform)
    bundle = with_changed_manifest(tiny_engine_bundle, tmp_path / "bundle", target=Target.TENSORRT_RTX)
    report = verify_bundle(bundle, tiny_checkpoint)
    hint = "With --onnx, the graphs that it was built from are checked instead."
    assert {(check.outcome, check.reason) for check in report.checks} == {
        (Outcome.NOT_RUN, f"there is no GPU on this machine. {hint}")
    }
    assert [check.graph for check in report.checks] == list(bundle.graphs)
    report.require()


def test_engines_go_up_the_same_ladder(report, tiny_engine_bundle, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "jukebox_deploy.engines.tensorrt.engine.open_platform", lambda target, options: fake_tensorrt.platform(target)
    )
    bundle = fake_tensorrt.save_engines(tiny_engine_bundle, tmp_path / "engines")
    found = verify_bundle(bundle, tiny_checkpoint, VerifyRequest(LEVEL_0, windows=2))
    found.require()
    assert [(c.graph, c.kind, c.where) for c in found.checks] == [(c.graph, c.kind, c.where) for c in report.checks]
    assert {check.outcome for check in found.checks} == {Outcome.PASSED}


class TestGraphsOfEngines:
    """Where engines cannot run, the graphs that they were built from are compared."""

    GRAPHS = ("condition_1", "prefill_1", "step_1")

    @pytest.fixture
    def engines(self, tiny_engine_bundle, tmp_path, monkeypatch):
        def open_platform(target, options):
            raise NoDeviceError("there is no GPU on this machine.")

        monkeypatch.setattr("jukebox_deploy.engines.tensorrt.engine.open_platform", open_platform)
        manifest = tiny_engine_bundle.manifest
        graphs = {
            name: dataclasses.replace(entry, options={"onnx_sha256": [manifest.files[entry.file].sha256]})
            for name, entry in manifest.graphs.items()
        }
        folder = tmp_path / "bundle"
        return with_changed_manifest(tiny_engine_bundle, folder, target=Target.TENSORRT_RTX, graphs=graphs)

    def test_they_are_compared_and_built(self, engines, tiny_engine_bundle, tiny_checkpoint):
        request = VerifyRequest(self.GRAPHS)
        report = verify_bundle(engines, tiny_checkpoint, request, exported=tiny_engine_bundle)
        unrun = [check for check in report.checks if check.outcome is Outcome.NOT_RUN]
        assert [(check.graph, check.kind) for check in unrun] == [(name, CheckKind.ENGINE) for name in self.GRAPHS]
        built = [check for check in report.checks if check.kind is CheckKind.BUILD]
        assert [check.graph for check in built] == list(self.GRAPHS)
        assert all(check.outcome is Outcome.PASSED and check.value > 0 for check in built)
        assert built[0].where.startswith("tensorrt-rtx 1.")
        assert report.outcomes["passed"] > 5
        assert report.target == "tensorrt-rtx"

    def test_what_cannot_be_built_fails(self, engines, tiny_engine_bundle, tiny_checkpoint, monkeypatch):
        def build_engine(*arguments):
            raise EngineError("condition_1: tensorrt-rtx cannot build the engine.")

        monkeypatch.setattr("jukebox_deploy.jobs.verification.build.build_engine", build_engine)
        report = verify_bundle(engines, tiny_checkpoint, VerifyRequest(self.GRAPHS[:1]), exported=tiny_engine_bundle)
        with pytest.raises(ParityError, match=r"condition_1, parse and build at tensorrt-rtx .*: condition_1: tens"):
            report.require()

    def test_a_flavour_that_is_not_installed_builds_nothing(
        self, engines, tiny_engine_bundle, tiny_checkpoint, monkeypatch
    ):
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        report = verify_bundle(engines, tiny_checkpoint, VerifyRequest(self.GRAPHS[:1]), exported=tiny_engine_bundle)
        (check,) = [check for check in report.checks if check.kind is CheckKind.BUILD]
        assert check.outcome is Outcome.NOT_RUN
        assert "tensorrt-rtx is not installed" in check.reason

    def test_other_graphs_are_refused(self, engines, tiny_engine_bundle, tiny_checkpoint, tmp_path):
        entry = tiny_engine_bundle.manifest.graphs["step_1"]
        graphs = tiny_engine_bundle.manifest.graphs | {"step_1": dataclasses.replace(entry, file="step_0.onnx")}
        other = with_changed_manifest(tiny_engine_bundle, tmp_path / "other", graphs=graphs)
        with pytest.raises(EngineError, match=r"step_1 was not built from the graph in .*other"):
            verify_bundle(engines, tiny_checkpoint, exported=other)

    def test_other_graphs_do_not_matter_to_engines_that_are_not_compared(
        self, engines, tiny_engine_bundle, tiny_checkpoint, tmp_path
    ):
        entry = tiny_engine_bundle.manifest.graphs["step_1"]
        graphs = tiny_engine_bundle.manifest.graphs | {"step_1": dataclasses.replace(entry, file="step_0.onnx")}
        other = with_changed_manifest(tiny_engine_bundle, tmp_path / "other", graphs=graphs)
        report = verify_bundle(engines, tiny_checkpoint, VerifyRequest(("condition_1",)), exported=other)
        assert {check.graph for check in report.checks} == {"condition_1"}

    def test_graphs_need_no_others(self, tiny_engine_bundle, tiny_checkpoint):
        with pytest.raises(EngineError, match="only for verifying TensorRT engines"):
            verify_bundle(tiny_engine_bundle, tiny_checkpoint, exported=tiny_engine_bundle)


def test_a_step_without_its_prefill_is_not_run(tiny_engine_bundle, tiny_checkpoint, tmp_path):
    graphs = {name: entry for name, entry in tiny_engine_bundle.manifest.graphs.items() if name == "step_0"}
    report = verify_bundle(
        with_changed_manifest(tiny_engine_bundle, tmp_path / "bundle", graphs=graphs), tiny_checkpoint
    )
    assert [check.outcome for check in report.checks] == [Outcome.NOT_RUN] * 3
    assert {check.reason for check in report.checks} == {"the bundle has no prefill_0"}


def test_a_failure_tells_check_and_tensor():
    rows = (TensorParity("key_0", 0.5, 0.25, 1e-5), TensorParity("key_1", 0.0, 0.0, 1e-5))
    check = Check("step_2", CheckKind.GIVEN_CODES, "B=2", Outcome.FAILED, "relative error of key_0", 0.25, 1e-5, rows)
    report = VerifyReport("folder", "onnxruntime", "fp32", "0" * 64, {}, {}, (check,))
    with pytest.raises(ParityError) as raised:
        report.require()
    assert str(raised.value) == (
        "folder disagrees with its checkpoint in 1 of 1 checks:\n"
        "  step_2, given codes at B=2: relative error of key_0 0.25, limit 1e-05\n"
        "    key_0: error 0.5, relative 0.25, allowed 1e-05"
    )


def test_numbers_that_json_lacks_are_null():
    data = Check("step_2", CheckKind.SOUND, "", Outcome.FAILED, value=math.nan, limit=100.0).to_json()
    assert data["value"] is None


@pytest.mark.parametrize(
    ("error", "expected"), [(0.0, math.inf), (1.0, 0.0), (0.1, 20.0), (1e-5, 100.0), (math.nan, math.nan)]
)
def test_the_sound_is_measured_in_decibels(error, expected):
    signal = np.ones(1000)
    np.testing.assert_allclose(signal_to_error(signal, signal + error), expected, atol=1e-6)


def test_noise_instead_of_silence_is_infinitely_bad():
    assert signal_to_error(np.zeros(4), np.ones(4)) == -math.inf
    assert signal_to_error(np.zeros(4), np.zeros(4)) == math.inf
