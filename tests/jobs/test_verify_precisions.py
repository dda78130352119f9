"""What a verification allows depends on what each graph computes in, and it notices what it must in all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.errors import EngineError
from jukebox_deploy.export.feeds import random_feed
from jukebox_deploy.export.validation import LIMITS, compare
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.jobs.verification.ladder import VerifyRequest
from jukebox_deploy.jobs.verification.origin import OriginFinder
from jukebox_deploy.jobs.verification.report import CheckKind, Outcome, VerifyReport
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.damaged_bundles import with_scaled_weight, with_zeroed_weight
from tests.engines import fake_tensorrt
from tests.export.small_models import unlabelled_config

GRAPHS = ("condition_1", "prefill_1", "step_1")


@pytest.fixture(scope="module", params=[Precision.FP16, Precision.BF16])
def half(
    tiny_checkpoint: CheckpointBundle, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> EngineBundle:
    folder = tmp_path_factory.mktemp("half") / "onnx"
    options = ExportRequest(GraphOptions(request.param), GRAPHS, False, TensorRtCheck.NEVER, processes=1)
    export_bundle(tiny_checkpoint, folder, options)
    return open_bundle(folder)


def failed_kinds(report: VerifyReport) -> set[CheckKind]:
    return {check.kind for check in report.checks if check.failed}


def test_a_sound_bundle_in_half_precision_passes(half: EngineBundle, tiny_checkpoint: CheckpointBundle) -> None:
    verify_bundle(half, tiny_checkpoint).require()


def test_a_lost_last_layer_is_found(half: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    """No cache sees it, codes may differ in half precision, and in bf16 no tensor exceeds its tolerance."""
    lost = "core.transformer.layers.2.mlp.contract.weight"
    report = verify_bundle(with_zeroed_weight(half, tmp_path / "lost", "step_1", lost), tiny_checkpoint)
    assert CheckKind.ROUNDING in failed_kinds(report)
    origins = {check.origin.partition(" (")[0] for check in report.checks if check.failed and check.origin}
    assert origins == {f"the difference starts in {lost.removesuffix('.weight')}"}


def test_a_wrong_layer_is_named(half: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    wrong = "core.transformer.layers.1.mlp.contract.weight"
    bundle = with_scaled_weight(half, tmp_path / "wrong", "step_1", wrong, 50.0, half.manifest.precision)
    report = verify_bundle(bundle, tiny_checkpoint)
    origins = {check.origin.partition(" (")[0] for check in report.checks if check.failed and check.origin}
    assert origins == {f"the difference starts in {wrong.removesuffix('.weight')}"}


def origin_in_step(bundle: EngineBundle, checkpoint: CheckpointBundle) -> str:
    """Where the step of level 1 begins to differ, on random inputs."""
    spec = bundle.graphs["step_1"]
    feeds = {tensor.name: random_feed(tensor, spec, bundle.manifest.config, {"B": 2}, 0) for tensor in spec.inputs}
    return OriginFinder(checkpoint, bundle, {}).origin(spec, feeds)


def test_no_layer_of_a_sound_graph_is_named(half: EngineBundle, tiny_checkpoint: CheckpointBundle) -> None:
    assert "layers agree within the limits" in origin_in_step(half, tiny_checkpoint)


def test_a_layer_that_is_wrong_within_the_tolerance_is_named(
    half: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path
) -> None:
    """By half of what the limit of a tensor allows, which is many times what rounding costs."""
    wrong, precision = "core.transformer.layers.1.mlp.contract", half.manifest.precision
    factor = 1 + LIMITS[precision].relative_error / 2
    bundle = with_scaled_weight(half, tmp_path / "wrong", "step_1", f"{wrong}.weight", factor, precision)
    assert origin_in_step(bundle, tiny_checkpoint).startswith(f"the difference starts in {wrong} (relative error 0.0")


def test_what_is_fp32_is_held_to_that(half: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    changed = with_scaled_weight(half, tmp_path / "scaled", "condition_1", "conditioner.norm.weight", 1.005)
    report = verify_bundle(changed, tiny_checkpoint, VerifyRequest(("condition_1",)))
    assert [check.limit for check in report.checks if check.failed] == [LIMITS[Precision.FP32].relative_error]


def test_a_graph_says_what_it_computes_in(half: EngineBundle) -> None:
    found = {name: spec.precision for name, spec in half.graphs.items()}
    precision = half.manifest.precision
    assert found == {"condition_1": Precision.FP32, "prefill_1": precision, "step_1": precision}


@pytest.mark.parametrize(
    ("precision", "name", "unequal", "holds"),
    [
        (Precision.FP16, "present_codes", 1, True),
        (Precision.BF16, "present_codes", 1, True),
        (Precision.FP16, "present_codes", 2, False),
        (Precision.FP32, "present_codes", 1, False),
        (Precision.FP16, "present_position", 1, False),
    ],
)
def test_only_a_drawn_code_may_differ(precision: Precision, name: str, unequal: int, holds: bool) -> None:
    expected = np.arange(40).reshape(1, 40)
    found = expected.copy()
    found[0, :unequal] += 1
    (row,) = compare({name: expected}, [(name, found)], precision)
    assert row.holds is holds


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "jukebox_deploy.engines.tensorrt.engine.open_platform", lambda target, options: fake_tensorrt.platform(target)
    )


@pytest.mark.usefixtures("pretended_gpu")
def test_sound_engines_in_half_precision_pass(
    half: EngineBundle, tiny_checkpoint: CheckpointBundle, tmp_path: Path
) -> None:
    report = verify_bundle(fake_tensorrt.save_engines(half, tmp_path / "engines"), tiny_checkpoint, exported=half)
    report.require()
    assert report.outcomes == {"passed": 9, "failed": 0, "reported": 1, "not run": 0}  # greedy codes have no limit


@pytest.mark.usefixtures("pretended_gpu")
class TestQuantisedEngines:
    """On a GPU that is pretended, engines with quantised weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, tmp_path_factory: pytest.TempPathFactory) -> CheckpointBundle:
        return write_random_bundle(unlabelled_config(), tmp_path_factory.mktemp("quantised") / "checkpoint")

    @pytest.fixture(scope="class")
    @classmethod
    def onnx(cls, checkpoint: CheckpointBundle, tmp_path_factory: pytest.TempPathFactory) -> EngineBundle:
        folder = tmp_path_factory.mktemp("quantised") / "onnx"
        stored = QuantisationRequest(LinearWeights.INT8, calibration=Calibration.NONE, judge_quality=False)
        options = ExportRequest(
            GraphOptions(), ("step_0",), False, TensorRtCheck.NEVER, processes=1, quantisation=stored
        )
        export_bundle(checkpoint, folder, options)
        return open_bundle(folder)

    def test_they_are_compared_beside_their_graphs(
        self, onnx: EngineBundle, checkpoint: CheckpointBundle, tmp_path: Path
    ) -> None:
        engines = fake_tensorrt.save_engines(onnx, tmp_path / "engines")
        outcomes = {c.kind: c.outcome for c in verify_bundle(engines, checkpoint, exported=onnx).checks}
        passed = {CheckKind.RANDOM_INPUTS, CheckKind.LOGITS, CheckKind.GREEDY_CODES, CheckKind.QUANTISED_WEIGHTS}
        assert {kind for kind, outcome in outcomes.items() if outcome is Outcome.PASSED} >= passed

    def test_a_miss_is_told_where_no_runtime_can_look_for_its_layer(
        self, onnx: EngineBundle, checkpoint: CheckpointBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def find_difference(*arguments: object) -> None:
            raise EngineError("onnxruntime is not installed.")

        monkeypatch.setattr("jukebox_deploy.jobs.verification.origin.find_difference", find_difference)
        lost = with_zeroed_weight(onnx, tmp_path / "lost", "step_0", "core.transformer.layers.0.mlp_norm.weight")
        engines = fake_tensorrt.save_engines(lost, tmp_path / "engines")
        failed = [c for c in verify_bundle(engines, checkpoint, exported=lost).checks if c.failed]
        assert failed[0].origin.endswith("(the layer was not looked for: onnxruntime is not installed.)")
        assert failed[0].origin.startswith("the first tensor that differs is")

    def test_a_provider_of_onnx_runtime_is_not_for_them(
        self, onnx: EngineBundle, checkpoint: CheckpointBundle, tmp_path: Path
    ) -> None:
        engines = fake_tensorrt.save_engines(onnx, tmp_path / "engines")
        with pytest.raises(EngineError, match=r"holds tensorrt-rtx engines, .*: drop --provider"):
            verify_bundle(engines, checkpoint, VerifyRequest(provider="cuda"))

    def test_alone_they_ask_for_their_graphs(
        self, onnx: EngineBundle, checkpoint: CheckpointBundle, tmp_path: Path
    ) -> None:
        engines = fake_tensorrt.save_engines(onnx, tmp_path / "engines")
        (reason,) = {c.reason for c in verify_bundle(engines, checkpoint).checks if c.kind is CheckKind.GIVEN_CODES}
        assert reason.endswith("name the ONNX bundle that it was built from with --onnx")
