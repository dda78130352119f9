"""Bundles with quantised weights: run by ONNX Runtime, built by TensorRT-RTX, and never worse than allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engine import Engine, PriorSession
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle
from jukebox_deploy.engines.quantised_weights import describe_prior, quantised_weights
from jukebox_deploy.errors import ExportError, ParityError, SamplingError
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.jobs import quantised_export
from jukebox_deploy.jobs.comparison.forced_windows import require_songs, sample_windows, song_windows, whole_blocks
from jukebox_deploy.jobs.comparison.quality import compare_logits, logits_of, times_rounding
from jukebox_deploy.jobs.export_job import ExportEvent, ExportRequest, export_bundle
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.opening.onnx_graphs import onnx_engine
from jukebox_deploy.jobs.quantised_export import (
    Calibration,
    QuantisationRequest,
    measure_quality,
    reference_engine,
    song_folders,
)
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.jobs.verification.ladder import VerifyRequest
from jukebox_deploy.jobs.verification.report import CheckKind, Outcome
from jukebox_deploy.jobs.verify_job import verify_bundle
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore
from tests.damaged_bundles import with_flipped_weight
from tests.export.small_models import separate_lyrics_config, unlabelled_config, write_checkpoint
from tests.jobs.traced_once import traced_once

pytest.importorskip("onnxruntime")
INT8, INT4, FP8 = LinearWeights.INT8, LinearWeights.INT4, LinearWeights.FP8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointBundle:
    return write_checkpoint(separate_lyrics_config(), tmp_path_factory.mktemp("checkpoint") / "bundle")


@pytest.fixture(scope="module", autouse=True)
def _graphs_are_traced_once() -> Iterator[None]:
    with traced_once():
        yield


@dataclass(frozen=True)
class Exported:
    bundle: EngineBundle
    events: list[ExportEvent]

    @property
    def facts(self) -> dict:
        return quantised_weights(self.bundle.manifest)[0]

    @property
    def report(self) -> dict:
        parity = self.bundle.manifest.parity
        assert parity is not None
        return parity["graphs"]


def export(checkpoint: CheckpointBundle, out: Path, **choices) -> Exported:
    events: list[ExportEvent] = []
    request = ExportRequest(
        choices.pop("options", GraphOptions()),
        graphs=("lyrics_0", "step_0"),
        tensorrt=choices.pop("tensorrt", TensorRtCheck.NEVER),
        processes=1,
        quantisation=QuantisationRequest(**choices),
    )
    export_bundle(checkpoint, out, request, events.append)
    return Exported(open_bundle(out), events)


@pytest.fixture(scope="module")
def exports(checkpoint, tmp_path_factory) -> Callable[[LinearWeights], Exported]:
    """Lyrics, prefill and step of a prior with a lyric encoder, exported once for each kind of weights."""
    return cache(lambda weights: export(checkpoint, tmp_path_factory.mktemp("onnx") / "bundle", weights=weights))


@pytest.fixture(params=[INT8, INT4, FP8])
def exported(request, exports) -> Exported:
    return exports(request.param)


def optimised_operators(path: Path, folder: Path) -> Counter:
    """The operators of a graph as ONNX Runtime would run it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(folder / "optimised.onnx", load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def quantised_of(path: Path) -> list[onnx.TensorProto]:
    types = (onnx.TensorProto.INT8, onnx.TensorProto.INT4, onnx.TensorProto.FLOAT8E4M3FN)
    return [t for t in onnx.load(path, load_external_data=False).graph.initializer if t.data_type in types]


@pytest.mark.parametrize("weights", [INT8, INT4])
@pytest.mark.parametrize("graph", ["lyrics_0", "prefill_0", "step_0"])
def test_every_integer_weight_is_fused(exports, tmp_path, graph, weights):
    path = exports(weights).bundle.folder / f"{graph}.onnx"
    count = len(quantised_of(path))
    operators = optimised_operators(path, tmp_path)
    assert count > 0
    assert operators["MatMulNBits"] == count
    assert operators["DequantizeLinear"] == 0


def test_the_graphs_are_the_model_with_these_weights(exported):
    runs = [run for entry in exported.report.values() for run in entry["runs"]]
    assert len(runs) == 5  # two of step and prefill, one of lyrics
    assert all(run["relative_error"] < 1e-5 for run in runs)


def test_the_manifest_says_how_good_they_are(exported):
    manifest = exported.bundle.manifest
    quality = exported.facts["quality"]
    assert manifest.linear_weights == exported.facts["weights"]
    assert 0 < quality["mean_kl_nats"] < 0.01
    assert quality["top1_agreement"] > 0.85
    assert quality["positions"] == 4 * 48
    assert [event.graph for event in exported.events if event.action == "quality"] == ["step_0"]
    assert manifest.graphs["step_0"].spec.tensor("logits")  # what it is measured on, here and by `verify`
    assert f"top-1 {quality['top1_agreement']:.1%} over 192 codes" in describe_prior(0, exported.facts)


def test_step_and_prefill_share_the_weights(exported):
    places = [
        {t.name: tuple(e.value for e in t.external_data) for t in quantised_of(exported.bundle.folder / f"{name}.onnx")}
        for name in ("prefill_0", "step_0")
    ]
    assert places[0].items() <= places[1].items()
    names = set(places[1])
    assert not any(name.startswith("lyric_encoder") or "encoder_key_value" in name for name in names)


def test_verification_passes(exported, checkpoint):
    report = verify_bundle(exported.bundle, checkpoint)
    assert [check for check in report.checks if check.outcome is not Outcome.PASSED] == []
    kinds = {check.kind for check in report.checks}
    assert {CheckKind.GREEDY_CODES, CheckKind.QUANTISED_WEIGHTS, CheckKind.PROBABILITIES} <= kinds


def test_verification_finds_a_changed_scale(exported, checkpoint, tmp_path):
    name = "core.transformer.layers.1.mlp.expand.weight_scale"
    bundle = with_flipped_weight(exported.bundle, tmp_path / "bundle", "step_0", name)
    report = verify_bundle(bundle, checkpoint, VerifyRequest(("prefill_0", "step_0")))
    failed = {check.kind for check in report.checks if check.outcome is Outcome.FAILED}
    assert CheckKind.QUANTISED_WEIGHTS in failed


def test_calibration_pays(exports, checkpoint, tmp_path):
    plain = export(checkpoint, tmp_path / "plain", weights=INT4, calibration=Calibration.NONE)
    assert exports(INT4).facts["quality"]["mean_kl_nats"] < 0.5 * plain.facts["quality"]["mean_kl_nats"]


def test_the_same_seed_gives_the_same_weights(exported, checkpoint, tmp_path):
    weights = LinearWeights(exported.facts["weights"])
    again = export(checkpoint, tmp_path / "again", weights=weights).bundle.manifest
    assert again.files["prior_0.weights"] == exported.bundle.manifest.files["prior_0.weights"]


@pytest.mark.parametrize("weights", [INT8, INT4, FP8])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_tensorrt_builds_it_in_half_precision(checkpoint, tmp_path, weights, precision):
    pytest.importorskip("tensorrt_rtx")
    options = GraphOptions(precision, slots=(1, 2, 4))
    made = export(checkpoint, tmp_path / "onnx", weights=weights, options=options, tensorrt=TensorRtCheck.ALWAYS)
    assert made.bundle.manifest.parity is not None
    assert all(entry["tensorrt_rtx"].startswith("built for 8.9") for entry in made.report.values())
    assert made.facts["quality"]["mean_kl_nats"] < 0.01


def test_quality_that_was_not_measured_is_not_made_up(checkpoint, tmp_path):
    made = export(checkpoint, tmp_path / "onnx", weights=INT8, judge_quality=False)
    assert made.facts["quality"] is None
    assert made.facts["column_error"] > 0
    assert not [event for event in made.events if event.action == "quality"]
    assert describe_prior(0, made.facts).endswith("; quality not measured")
    report = verify_bundle(made.bundle, checkpoint, VerifyRequest(("prefill_0", "step_0")))
    (check,) = [check for check in report.checks if check.kind is CheckKind.PROBABILITIES]
    assert check.outcome is Outcome.NOT_RUN
    assert "quality was not measured" in check.reason


def test_coarse_weights_are_refused_and_leave_nothing(checkpoint, tmp_path):
    with pytest.raises(ParityError, match=r"step_0: with int4 weights .* nats, allowed are 1e-09; .*--keep") as raised:
        export(checkpoint, tmp_path / "onnx", weights=INT4, calibration=Calibration.NONE, max_kl=1e-9)
    assert str(raised.value).endswith("calibrate on songs with --calibrate, choose int8, or accept it with --max-kl.")
    assert not list(tmp_path.iterdir())


def test_weights_in_int8_are_not_told_to_be_int8(checkpoint, tmp_path):
    with pytest.raises(ParityError, match="with int8 weights") as raised:
        export(checkpoint, tmp_path / "onnx", weights=INT8, max_kl=1e-9)
    assert "choose int8" not in str(raised.value)


def test_layers_stay_in_the_precision(checkpoint, tmp_path):
    made = export(checkpoint, tmp_path / "onnx", weights=INT8, keep=("core.layers.0", "mlp"))
    left = {t.name for t in quantised_of(made.bundle.folder / "step_0.onnx")}
    kept = set(made.facts["kept"])
    assert left
    assert not left & kept
    assert all("layers.0." in name or ".mlp." in name for name in kept)
    assert f"{len(kept)} kept" in describe_prior(0, made.facts)
    floats = {t.name for t in onnx.load(made.bundle.folder / "step_0.onnx", load_external_data=False).graph.initializer}
    assert {name for name in kept if name.startswith("core.layers.0")} <= floats


def test_layers_that_there_are_not_are_named_before_any_work(checkpoint, tmp_path):
    with pytest.raises(ExportError, match="Nearest are"):
        export(checkpoint, tmp_path / "onnx", weights=INT8, keep=("layers.99",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weights", [INT8, INT4])
def test_a_prior_whose_layers_all_stay_is_one_of_the_precision(tiny_checkpoint, tmp_path, monkeypatch, weights):
    def never(*_):
        raise AssertionError("there is nothing to calibrate")

    monkeypatch.setattr(quantised_export, "quantise_calibrated", never)
    quantisation = QuantisationRequest(weights, keep=("prior_1.layers.*",), max_kl=0.0)
    request = ExportRequest(
        GraphOptions(Precision.FP16),
        graphs=("condition_1", "step_1"),
        tensorrt=TensorRtCheck.NEVER,
        processes=1,
        quantisation=quantisation,
    )
    export_bundle(tiny_checkpoint, tmp_path / "onnx", request)
    bundle = open_bundle(tmp_path / "onnx")
    assert quantised_of(bundle.folder / "step_1.onnx") == []
    assert quantised_weights(bundle.manifest) == {}
    report = verify_bundle(bundle, tiny_checkpoint, VerifyRequest(steps=2))
    # Greedy codes have no limit in fp16.
    assert {check.outcome for check in report.checks} == {Outcome.PASSED, Outcome.REPORTED}


def test_a_graph_without_linear_layers_has_nothing_to_quantise(tiny_checkpoint, tmp_path):
    request = ExportRequest(
        graphs=("condition_0",),
        tensorrt=TensorRtCheck.NEVER,
        processes=1,
        quantisation=QuantisationRequest(INT8),
    )
    assert quantised_weights(export_bundle(tiny_checkpoint, tmp_path / "onnx", request)) == {}


@pytest.mark.parametrize("weights", [INT8, FP8])
def test_keeping_every_layer_is_refused_before_any_work(checkpoint, tmp_path, weights):
    with pytest.raises(ExportError, match=f"nothing is left to store as {weights} in any prior: of 2. linear layers"):
        export(checkpoint, tmp_path / "onnx", weights=weights, keep=("layers.*",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "choices",
    [
        {"keep": ("layers.0",)},
        {"calibration": Calibration.SELF},
        {"max_kl": 0.1},
        {"judge_quality": False},
        {"weights": INT8, "judge_quality": False, "max_kl": 0.1},
        {"weights": INT8, "songs": (Path("song"),)},
        {"weights": INT8, "calibration": Calibration.SONGS},
    ],
)
def test_choices_that_do_nothing_are_refused(choices):
    with pytest.raises(ExportError, match=r"--weights int8|song folders|no measurement"):
        QuantisationRequest(**choices)


@dataclass
class CountedSteps:
    """An engine that counts the steps of its priors."""

    engine: Engine
    steps: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def prior_session(self, level: int, slots: int) -> PriorSession:
        session = self.engine.prior_session(level, slots)
        step = session.step

        def counted(count: int) -> None:
            self.steps += count
            step(count)

        session.step = counted  # type: ignore[method-assign]
        return session


def test_both_models_step_over_the_codes_once(exports, checkpoint, monkeypatch):
    bundle = exports(INT8).bundle
    reference = CountedSteps(reference_engine(checkpoint, 4))
    monkeypatch.setattr(quantised_export, "reference_engine", lambda checkpoint, slots: reference)
    found = CountedSteps(onnx_engine(bundle))
    quality = measure_quality(checkpoint, found, bundle.graphs["step_0"], seed=0)
    assert reference.steps == found.steps == quality.positions // quality.slots
    assert quality.mean_kl == exports(INT8).facts["quality"]["mean_kl_nats"]


def test_quality_of_known_distributions():
    logits = np.log(np.array([[[0.5, 0.25, 0.25]], [[0.2, 0.2, 0.6]]]))
    changed = np.log(np.array([[[0.25, 0.5, 0.25]], [[0.2, 0.2, 0.6]]])) + 3.0
    quality = compare_logits(logits, changed)
    assert quality.mean_kl == pytest.approx(0.5 * (0.5 * np.log(2) - 0.25 * np.log(2)))
    assert (quality.top1_agreement, quality.positions, quality.slots) == (0.5, 2, 1)
    assert compare_logits(logits, logits).mean_kl == pytest.approx(0.0, abs=1e-12)
    assert not compare_logits(logits, np.full_like(logits, np.nan)).mean_kl <= 1.0


def test_errors_of_logits_beside_what_rounding_costs():
    exact = np.random.default_rng(0).standard_normal((5, 2, 64)).astype(np.float32)
    rounded = exact.astype(np.float16).astype(np.float32)
    assert times_rounding(exact, rounded, exact) == 1.0
    assert times_rounding(exact, rounded, rounded) == 0.0
    assert times_rounding(exact, rounded, rounded + 4 * (rounded - exact)) == pytest.approx(4.0, rel=1e-3)
    assert np.isnan(times_rounding(exact, rounded, np.full_like(exact, np.nan)))
    assert times_rounding(exact, exact, exact) == 0.0


class TestWindows:
    """What quantisation is calibrated on."""

    TINY = preset("tiny")
    TABLES = declare_graphs(TINY, GraphOptions(logits=True))

    @pytest.mark.parametrize("level", [0, 2])
    def test_the_model_samples_them(self, tiny_checkpoint, level):
        prior = self.TINY.prior(level)
        model = eager_engine(tiny_checkpoint, self.TABLES)
        length = whole_blocks(prior, 40)
        windows, logits = sample_windows(model, prior, 2, length, seed=3)
        assert length == 64 + prior.lyric_prefix
        assert windows.positions == 2 * length
        codes = windows.tensors["codes"]
        assert len(np.unique(codes[:, prior.lyric_prefix : length])) > 20
        assert not codes[:, length:].any()
        again, _ = sample_windows(model, prior, 2, length, seed=3)
        np.testing.assert_array_equal(again.tensors["codes"], codes)
        np.testing.assert_array_equal(logits, logits_of(model, prior, windows))
        sequences = windows.calibration()
        assert sequences.codes.shape == (2, length)
        assert sequences.conditioning is not None

    def test_songs_give_them(self, tiny_checkpoint, tmp_path):
        folder = self.song(tmp_path / "song")
        model = eager_engine(tiny_checkpoint, self.TABLES)
        for level in (0, 2):
            prior = self.TINY.prior(level)
            windows = song_windows(model, prior, tiny_checkpoint.vocabulary, song_folders(tmp_path), 3)
            codes = np.load(folder / f"codes_{level}.npy") + prior.code_shift
            music = windows.tensors["codes"][0, prior.lyric_prefix : windows.length]
            np.testing.assert_array_equal(music, codes[: len(music)])
            assert windows.length % prior.transformer.block_length == 0
            assert windows.calibration().start is not None

    def test_songs_that_are_not_finished_are_refused(self, tiny_checkpoint, tmp_path):
        folder = self.song(tmp_path / "song")
        (folder / "codes_0.npy").unlink()
        model = eager_engine(tiny_checkpoint, self.TABLES)
        with pytest.raises(SamplingError, match=r"has 0 of .* codes at level 0"):
            song_windows(model, self.TINY.prior(0), tiny_checkpoint.vocabulary, (folder,), 1)

    @pytest.mark.parametrize(
        ("seconds", "lost", "said"),
        [
            (0.8, "codes_2.npy", r"song has 0 of \d+ codes at level 2; sample the song to its end"),
            (0.8, "codes_1.npy", r"song has 0 of \d+ codes at level 1; sample the song to its end"),
            (0.02, "", r"song: the song has \d+ codes at level 1, less than one block of 32; leave it out"),
        ],
    )
    def test_songs_that_cannot_calibrate_are_refused_before_anything_is_traced(
        self, tiny_checkpoint, tmp_path, monkeypatch, seconds, lost, said
    ):
        folder = self.song(tmp_path / "song", seconds)
        if lost:
            (folder / lost).unlink()
        monkeypatch.setattr("jukebox_deploy.jobs.export_job.trace_all", lambda *_: pytest.fail("it was traced"))
        stored = QuantisationRequest(LinearWeights.INT4, calibration=Calibration.SONGS, songs=(folder,))
        request = ExportRequest(GraphOptions(), ("step_2", "step_1"), quantisation=stored, processes=1)
        with pytest.raises(SamplingError, match=said):
            export_bundle(tiny_checkpoint, tmp_path / "onnx", request)
        assert not (tmp_path / "onnx").exists()

    def test_songs_of_a_model_with_other_levels_are_refused(self, tmp_path):
        config = unlabelled_config()
        assert config.vqvae.levels != self.TINY.vqvae.levels
        with pytest.raises(SamplingError, match="song has 3 levels, but this model has 1"):
            require_songs(config, config.priors, [self.song(tmp_path / "song")])

    def test_a_folder_without_songs_is_refused(self, tmp_path):
        with pytest.raises(SamplingError, match="nor a folder with songs"):
            song_folders(tmp_path)

    def song(self, folder: Path, seconds: float = 0.8) -> Path:
        """A song whose codes are random."""
        vqvae = self.TINY.vqvae
        top = vqvae.hop_length(vqvae.levels - 1)
        samples = int(seconds * vqvae.sample_rate) // top * top
        totals = tuple(samples // vqvae.hop_length(level) for level in range(vqvae.levels))
        lengths = SongLengths((0,) * vqvae.levels, totals)
        request = SongRequest(seconds=0.8, lyrics="la la")
        random = np.random.default_rng(0)
        with SongStore(folder) as store:
            store.begin(SongRecord("tiny", Fingerprint("engine", "checkpoint"), request, lengths), ())
            for level, total in enumerate(totals):
                store.commit(level, random.integers(0, vqvae.codebook_size, total))
        return folder
