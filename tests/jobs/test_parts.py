"""A model exported in parts is the model: the same codes, the same caches, and every part built by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.jobs.comparison.window_runs import (
    StretchPlace,
    WindowStretch,
    make_stretch,
    run_given_codes,
    run_greedy_codes,
)
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.jobs.verification.ladder import VerifyRequest
from jukebox_deploy.jobs.verification.report import Outcome
from jukebox_deploy.jobs.verify_job import verify_bundle
from tests.damaged_bundles import with_flipped_weight

PARTS = 3
LEVELS = (0, 2)


@pytest.fixture(scope="module")
def in_parts(tiny_checkpoint: CheckpointBundle, tmp_path_factory: pytest.TempPathFactory) -> EngineBundle:
    """Steps and prefills of `tiny`, cut; each is compared with PyTorch, and its parts are built by TensorRT-RTX."""
    folder = tmp_path_factory.mktemp("parts") / "bundle"
    graphs = tuple(f"step_{level}" for level in LEVELS)
    request = ExportRequest(graphs=graphs, tensorrt=TensorRtCheck.AUTO, processes=1, cutting=Cutting(PARTS))
    export_bundle(tiny_checkpoint, folder, request)
    return open_bundle(folder)


def runs(
    whole: EngineBundle, in_parts: EngineBundle, stretch: WindowStretch, level: int
) -> Iterator[dict[str, np.ndarray]]:
    """What the whole graphs give and what the parts do, over given codes and over codes they choose."""
    prior = whole.manifest.config.prior(level)
    for bundle in (whole, in_parts):
        session = onnx_engine(bundle).prior_session(level, stretch.slots)
        yield run_given_codes(session, prior, stretch) | {"codes": run_greedy_codes(session, prior, stretch)}


@pytest.mark.parametrize("level", LEVELS)
def test_codes_and_caches_are_those_of_the_whole_graphs(
    tiny_checkpoint: CheckpointBundle, tiny_engine_bundle: EngineBundle, in_parts: EngineBundle, level: int
) -> None:
    model = eager_engine(tiny_checkpoint, tiny_engine_bundle.graphs)
    stretch = make_stretch(model, tiny_checkpoint.config.prior(level), StretchPlace(0, 1), 3, seed=5)
    expected, found = runs(tiny_engine_bundle, in_parts, stretch, level)
    np.testing.assert_array_equal(found.pop("codes"), expected.pop("codes"))
    for name, array in found.items():  # the runtime fuses other operators where a graph is cut
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_all_parts_point_into_one_file_of_weights(in_parts: EngineBundle) -> None:
    step = in_parts.manifest.graphs["step_2"]
    assert step.weights == ("prior_2.weights",)
    assert [part.file for part in step.parts] == [f"step_2_part_{part}.onnx" for part in range(PARTS)]
    assert step.file == ""
    assert set(in_parts.graphs) == {f"{kind}_{level}" for level in LEVELS for kind in ("step", "prefill")}


def test_every_part_was_built(in_parts: EngineBundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    assert in_parts.manifest.parity is not None
    reports = in_parts.manifest.parity["graphs"].values()
    assert all(report["tensorrt_rtx"].endswith(f"in {PARTS} parts") for report in reports)


def test_a_difference_is_found_in_the_part_where_it_starts(
    tiny_checkpoint: CheckpointBundle, in_parts: EngineBundle, tmp_path: Path
) -> None:
    weight = "core.transformer.layers.8.mlp.contract"
    damaged = with_flipped_weight(in_parts, tmp_path / "damaged", "step_2_part_1", f"{weight}.weight")
    report = verify_bundle(damaged, tiny_checkpoint, VerifyRequest(("step_2",)))
    origins = {check.origin.partition(" (")[0] for check in report.checks if check.outcome is Outcome.FAILED}
    assert origins - {""} == {f"the difference starts in {weight}"}


def test_more_parts_than_layers_are_refused(tiny_checkpoint: CheckpointBundle, tmp_path: Path) -> None:
    request = ExportRequest(graphs=("step_0",), processes=1, cutting=Cutting(4))
    with pytest.raises(ConfigError, match="_0 has 3 layers, which cannot be cut into 4 parts"):
        export_bundle(tiny_checkpoint, tmp_path / "onnx", request)
    assert not list(tmp_path.iterdir())
