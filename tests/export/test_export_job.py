import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.errors import ExportError, ParityError
from jukebox_deploy.export.cutting import Cutting
from jukebox_deploy.export.validation import LIMITS
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.export_progress import ExportProgress
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.models.builders import build_model
from tests.export.small_models import separate_lyrics_config, write_checkpoint


def test_every_graph_of_tiny_agrees_with_eager_and_builds(tiny_engine_bundle: EngineBundle):
    report = tiny_engine_bundle.manifest.parity
    assert report is not None
    assert set(report["graphs"]) == set(declare_graphs(tiny_engine_bundle.manifest.config))
    for name, entry in report["graphs"].items():
        assert len(entry["runs"]) == (1 if name.startswith("condition") else 2), name  # one window is all it takes
        assert all(run["relative_error"] <= LIMITS[Precision.FP32].relative_error for run in entry["runs"])
        assert entry["tensorrt_rtx"].startswith("built for 8.9")


def test_graphs_of_a_model_share_one_weight_file(tiny_engine_bundle: EngineBundle):
    manifest = tiny_engine_bundle.manifest
    assert manifest.graphs["step_2"].weights == manifest.graphs["prefill_2"].weights == ("prior_2.weights",)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_model(manifest.config, 2).parameters())
    # One copy in all, each tensor at the start of a page.
    tensors = len(build_model(manifest.config, 2).state_dict())
    assert 4 * parameters <= manifest.files["prior_2.weights"].bytes < 4 * parameters + 4096 * tensors


def test_graph_files_are_small_and_name_no_place(tiny_engine_bundle: EngineBundle):
    for name, entry in tiny_engine_bundle.manifest.graphs.items():
        path = tiny_engine_bundle.folder / entry.file
        assert path.stat().st_size < 300_000, name
        assert b"site-packages" not in path.read_bytes()
        model = onnx.load(path, load_external_data=False)
        assert {o.domain: o.version for o in model.opset_import} == {"": 24}
        assert not model.functions


def test_a_model_with_a_lyric_encoder(tmp_path: Path):
    manifest = export_bundle(
        write_checkpoint(separate_lyrics_config(), tmp_path / "checkpoint"),
        tmp_path / "onnx",
        ExportRequest(graphs=("lyrics_0", "condition_0", "prefill_0", "step_0"), tensorrt=TensorRtCheck.ALWAYS),
    )
    assert manifest.parity is not None
    runs = {name: len(entry["runs"]) for name, entry in manifest.parity["graphs"].items()}
    assert runs == {"lyrics_0": 1, "condition_0": 1, "prefill_0": 2, "step_0": 2}
    open_bundle(tmp_path / "onnx")


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_half_precision(tmp_path: Path, precision: Precision):
    manifest = export_bundle(
        write_checkpoint(separate_lyrics_config(), tmp_path / "checkpoint"),
        tmp_path / "onnx",
        ExportRequest(
            GraphOptions(precision, slots=(2, 2, 2), logits=True), ("step_0",), tensorrt=TensorRtCheck.ALWAYS
        ),
    )
    assert manifest.parity is not None
    assert set(manifest.graphs) == {"prefill_0", "step_0"}  # one is of no use without the other
    entry = manifest.parity["graphs"]["step_0"]
    assert entry["runs"][0]["sizes"] == {"B": 2}
    assert 0 < entry["runs"][0]["relative_error"] < LIMITS[precision].relative_error
    model = onnx.load(tmp_path / "onnx" / "step_0.onnx", load_external_data=False)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output}
    assert shapes["logits"] == [2, 32]


def test_a_graph_that_disagrees_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = write_checkpoint(separate_lyrics_config(), tmp_path / "checkpoint")
    monkeypatch.setitem(LIMITS, Precision.FP32, replace(LIMITS[Precision.FP32], relative_error=1e-12))
    with pytest.raises(ParityError, match="vqvae_decode_0 disagrees with the model at B=1, T=7 in"):
        export_bundle(checkpoint, tmp_path / "onnx", ExportRequest(graphs=("vqvae_decode_0",)))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_unknown_graphs_are_refused_before_any_work(tiny_checkpoint: CheckpointBundle, tmp_path: Path):
    with pytest.raises(ExportError, match=r"has no graph step_9; it has "):
        export_bundle(tiny_checkpoint, tmp_path / "onnx", ExportRequest(graphs=("step_9",)))
    assert not list(tmp_path.iterdir())


def test_the_manifest_tells_where_it_came_from(tiny_engine_bundle: EngineBundle, tiny_checkpoint: CheckpointBundle):
    manifest = tiny_engine_bundle.manifest
    assert manifest.checkpoint == tiny_checkpoint.fingerprint()
    assert {"torch", "onnx", "onnxscript", "onnxruntime"} <= set(manifest.tools)
    assert "glass harbour" in json.dumps(manifest.vocabulary)


@pytest.mark.parametrize("parts", [1, 2])
def test_an_export_tells_what_it_does_and_what_is_done(
    tiny_checkpoint: CheckpointBundle, tmp_path: Path, parts: int
) -> None:
    """By the names of whole graphs; the last one is done only when the files are hashed."""
    told: list[ExportProgress] = []
    request = ExportRequest(
        graphs=("step_0", "condition_2"), tensorrt=TensorRtCheck.NEVER, processes=1, cutting=Cutting(parts)
    )
    export_bundle(tiny_checkpoint, tmp_path / "onnx", request, progress=told.append)
    assert told[0] == ExportProgress(0, 3, "tracing prefill_0, step_0, condition_2")
    assert ExportProgress(0, 3, "comparing step_0 with PyTorch") in told
    assert ExportProgress(2, 3, "writing the graphs and weights of prior_2") in told
    assert told[-2:] == [ExportProgress(2, 3, "hashing the files"), ExportProgress(3, 3)]
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
