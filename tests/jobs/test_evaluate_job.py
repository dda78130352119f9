"""Evaluation of a checkpoint and its exports: what is measured, what is compared, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import Precision
from jukebox_deploy.data.catalogue import songs_digest
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.jobs.evaluate_job import (
    BundleResult,
    Evaluation,
    EvaluationRequest,
    PriorResult,
    evaluate,
)
from jukebox_deploy.jobs.evaluation.bundles import open_evaluated
from jukebox_deploy.jobs.evaluation.data import DataChoice
from jukebox_deploy.jobs.evaluation.token_scoring import PriorScore
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.training.metrics import TokenScore
from tests.damaged_bundles import with_changed_manifest
from tests.data.song_folders import noise, write_sound, write_table
from tests.jobs.small_evaluation import (
    RATE,
    joint_lyrics_config,
    prior_of,
    upsampler_config,
    write_checkpoint,
    write_songs,
)

pytest.importorskip("onnxruntime")
CONFIG = joint_lyrics_config()


@dataclass(frozen=True)
class Material:
    songs: Path
    checkpoint: CheckpointBundle
    onnx: EngineBundle

    def evaluate(self, *bundles: Path, **choices) -> Evaluation:
        data = DataChoice(self.songs, held_out=False, windows=6, seconds=0.5)
        return evaluate(EvaluationRequest(bundles, replace(data, **choices)))


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp("evaluation")
    checkpoint = write_checkpoint(CONFIG, folder / "checkpoint")
    return Material(write_songs(folder / "songs"), checkpoint, export(checkpoint, folder / "onnx"))


def export(checkpoint: CheckpointBundle, out: Path, precision: Precision = Precision.FP32) -> EngineBundle:
    options = GraphOptions(precision, slots=(1, 2, 4), logits=True)
    export_bundle(checkpoint, out, ExportRequest(options, validate=False, tensorrt=TensorRtCheck.NEVER, processes=1))
    return open_bundle(out)


@pytest.fixture(scope="module")
def evaluation(material) -> Evaluation:
    return material.evaluate(material.checkpoint.folder, material.onnx.folder)


def test_onnx_runtime_needs_as_many_bits_as_pytorch(evaluation):
    (by_model,), (by_engine,) = (bundle.priors for bundle in evaluation.bundles)
    assert by_model.windows == by_engine.windows == 6
    assert by_engine.score.music.tokens == 6 * prior_of(CONFIG).window
    assert evaluation.cost(evaluation.bundles[1], 0) == pytest.approx(0, abs=1e-5)
    assert not evaluation.is_costly(evaluation.bundles[1], 0)
    assert by_engine.score.lyrics.bits_per_token == pytest.approx(by_model.score.lyrics.bits_per_token, rel=1e-5)


def test_bundles_are_named_by_what_they_are(evaluation):
    kinds = [(bundle.backend, bundle.precision, bundle.weights) for bundle in evaluation.bundles]
    assert kinds == [("PyTorch", "fp32", "fp32"), ("onnxruntime", "fp32", "fp32")]


def test_engines_alone_measure_what_the_checkpoint_measures(material, evaluation):
    """Their own graphs encode and decode as well."""
    alone = material.evaluate(material.onnx.folder)
    assert alone.levels[0].snr == pytest.approx(evaluation.levels[0].snr, abs=1e-3)
    assert alone.levels[0].use.used == evaluation.levels[0].use.used
    music, expected = (e.bundles[0].priors[0].score.music for e in (alone, evaluation))
    assert music.bits_per_token == pytest.approx(expected.bits_per_token, rel=1e-5)


def test_codes_that_are_kept_are_used_again(material, tmp_path):
    request = EvaluationRequest(
        (material.checkpoint.folder,), DataChoice(material.songs, held_out=False, seconds=0.5), tmp_path / "codes"
    )
    first = evaluate(request)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "codes").iterdir()}
    assert len(kept) == 4
    assert evaluate(request) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "codes").iterdir()} == kept


def test_names_that_the_model_does_not_know_are_told(tmp_path):
    """Its bits per token are worse for them, and the reader should know why; a short song is told of too."""
    checkpoint = write_checkpoint(upsampler_config(), tmp_path / "checkpoint")
    songs = write_songs(tmp_path / "songs", 1)
    write_sound(songs / "short.wav", noise(0.001, rate=RATE), RATE)
    write_table(songs, [{"file": "0.wav", "artist": "zoe", "genres": ["folk"]}, {"file": "short.wav"}])
    data = DataChoice(songs, held_out=False, seconds=0.2)
    notes = evaluate(EvaluationRequest((checkpoint.folder,), data)).notes
    assert len(notes) == 2
    assert "short.wav is left out: too short" in notes[0]
    assert "0.wav: The model does not know the artist 'zoe'" in notes[1]


def test_a_checkpoint_without_priors_is_evaluated_by_its_sound_alone(material, tmp_path):
    checkpoint = write_checkpoint(replace(CONFIG, priors=()), tmp_path / "vqvae")
    evaluation = material.evaluate(checkpoint.folder)
    assert [level.level for level in evaluation.levels] == [0]
    assert evaluation.bundles[0].priors == ()


def test_bundles_of_another_checkpoint_are_refused(material, tmp_path):
    other = write_checkpoint(CONFIG, tmp_path / "other", seed=1)
    with pytest.raises(EngineError, match=r"comes from the checkpoint \w{12}…, .*Evaluate them one by one"):
        material.evaluate(other.folder, material.onnx.folder)


def test_what_cannot_run_is_listed_with_its_reason(material, tmp_path):
    few = {name: graph for name, graph in material.onnx.manifest.graphs.items() if name != "prefill_0"}
    partial = with_changed_manifest(material.onnx, tmp_path / "partial", graphs=few)
    rtx = with_changed_manifest(material.onnx, tmp_path / "rtx", target=Target.TENSORRT_RTX)
    evaluation = material.evaluate(material.checkpoint.folder, partial.folder, rtx.folder)
    results = [bundle.priors[0] for bundle in evaluation.bundles]
    assert [result.score is None for result in results] == [False, True, True]
    assert "needs prefill_0" in results[1].not_run
    assert results[2].not_run  # no GPU, or no engines
    assert [evaluation.cost(bundle, 0) for bundle in evaluation.bundles] == [0, None, None]


def test_graphs_in_bf16_are_evaluated_in_bf16(material, tmp_path):
    bf16 = export(material.checkpoint, tmp_path / "bf16", Precision.BF16)
    in_fp32, bundle = material.evaluate(material.checkpoint.folder, bf16.folder).bundles
    assert (bundle.backend, bundle.precision, bundle.weights) == ("onnxruntime", "bf16", "bf16")
    bits, expected = (b.priors[0].score.music.bits_per_token for b in (bundle, in_fp32))
    assert bits == pytest.approx(expected, rel=0.01)
    assert bits != pytest.approx(expected, rel=1e-6)


def test_engines_without_an_encoder_need_a_checkpoint_before_them(material, tmp_path):
    few = {name: graph for name, graph in material.onnx.manifest.graphs.items() if not name.startswith("vqvae")}
    bundle = with_changed_manifest(material.onnx, tmp_path / "bundle", graphs=few)
    with pytest.raises(EngineError, match="has no vqvae_encode_0 to encode songs with; add its checkpoint"):
        material.evaluate(bundle.folder)
    evaluation = material.evaluate(material.checkpoint.folder, bundle.folder)
    assert evaluation.cost(evaluation.bundles[1], 0) == pytest.approx(0, abs=1e-5)


def result_of(bits: float) -> BundleResult:
    score = PriorScore(TokenScore(bits * 100, 40, 100))
    return BundleResult(f"{bits}", "onnxruntime", "fp32", "int8", (PriorResult(0, 4, score),))


@pytest.mark.parametrize(
    ("bits", "cost", "costly"),
    [(5.0, 0.0, False), (5.04, 0.008, False), (5.06, 0.012, True), (4.0, -0.2, False), (math.nan, math.nan, True)],
)
def test_more_than_a_percent_is_costly(bits, cost, costly):
    evaluation = Evaluation(DataChoice(Path("songs")), 4, (), (result_of(5.0), result_of(bits)))
    bundle = evaluation.bundles[1]
    assert evaluation.cost(bundle, 0) == pytest.approx(cost, nan_ok=True)
    assert evaluation.is_costly(bundle, 0) is costly
    (prior,) = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))["bundles"][1]["priors"]
    assert prior["costly"] is costly
    assert prior["top1"] == 0.4
    assert prior["bits_per_token"] == (None if math.isnan(bits) else pytest.approx(bits))


def test_the_report_is_plain_data(evaluation):
    data = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert (data["songs"], data["held_out"], data["train_fraction"]) == (4, False, None)
    assert data["levels"][0]["codebook_size"] == 32
    (prior,) = data["bundles"][1]["priors"]
    assert prior["tokens"] == 6 * 32
    assert prior["lyrics"]["tokens"] == 6 * 16
    assert prior["not_run"] is None


def test_the_report_says_what_was_measured(material, evaluation):
    data = evaluation.to_json()
    assert data["songs_digest"] == songs_digest(DataChoice(material.songs, held_out=False).songs().songs)
    assert (data["seconds"], data["windows"], data["coded_songs"]) == (0.5, 6, 4)
    assert {bundle["checkpoint"] for bundle in data["bundles"]} == {material.checkpoint.fingerprint()}


def test_priors_are_held_against_the_frequencies_of_codes_in_the_same_windows(evaluation):
    (known,) = evaluation.to_json()["by_frequency"]
    (prior,) = evaluation.bundles[0].priors
    assert (known["level"], known["tokens"], known["counted_songs"]) == (0, prior.score.music.tokens, 4)
    assert known["bits_per_token"] <= math.log2(32) + 1


def test_a_single_song_has_no_frequencies_to_be_held_against(material):
    evaluation = material.evaluate(material.checkpoint.folder, coded_songs=1)
    assert evaluation.frequency_score(0) is None
    assert evaluation.to_json()["by_frequency"] == []


def test_threads_are_of_no_use_to_engines_on_a_gpu(material, tmp_path):
    engines = with_changed_manifest(material.onnx, tmp_path / "engines", target=Target.TENSORRT)
    with pytest.raises(EngineError, match="--threads: not supported by TensorRT engines"):
        open_evaluated([engines.folder], threads=2)
    open_evaluated([material.checkpoint.folder, engines.folder], threads=2)  # PyTorch has a use for them
