"""Whole songs with exported graphs: what decides the codes, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.contract import LinearWeights
from jukebox_deploy.engines.bundle import EngineBundle, write_manifest
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.tensorrt.features import TensorRtOptions
from jukebox_deploy.errors import EngineError, SamplingError
from jukebox_deploy.jobs.sample_job import Backend, EngineChoice, OpenedModel, open_model
from jukebox_deploy.runtime.sampler import SamplingOptions, SongJob
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from tests.sampling_cases import all_codes, sample, write_sound

SHORTEST = 0.76  # seconds; the upsamplers need a whole window


@pytest.fixture(scope="module")
def model(tiny_engine_bundle: EngineBundle) -> OpenedModel:
    return open_model(tiny_engine_bundle.folder)


@pytest.fixture(scope="module")
def eager(tiny_engine_bundle: EngineBundle, tiny_checkpoint: CheckpointBundle) -> OpenedModel:
    return open_model(tiny_engine_bundle.folder, EngineChoice(Backend.EAGER, checkpoint=tiny_checkpoint.folder))


@pytest.fixture(scope="module")
def primed(tmp_path_factory: pytest.TempPathFactory) -> list[SongRequest]:
    """Songs that go through every graph of every level, but have only their ends to sample."""
    source = str(write_sound(tmp_path_factory.mktemp("prompt") / "tone.wav", 0.75))
    base = SongRequest(Mode.PRIMED, 0.8, source=source, seed=5)
    return [
        replace(base, artist="glass harbour", genre="folk", lyrics="Slow water, old stones"),
        replace(base, song=1, lyrics="la " * 40),
        replace(base, seconds=0.78, seed=6, levels=(LevelSettings(0.0), LevelSettings(1.1, top_p=0.7))),
        replace(base, seconds=0.79, source_seconds=0.7, total_seconds=3.0, offset_seconds=1.0),
    ]


ANCESTRAL = [
    SongRequest(seconds=SHORTEST, artist="the tin foxes", genre="folk", lyrics="Slow water, old stones", seed=1),
    SongRequest(seconds=SHORTEST, lyrics="la " * 40, seed=1, song=1),
    SongRequest(seconds=0.9, seed=2, levels=(LevelSettings(0.8, top_k=20), LevelSettings(), LevelSettings(0.9))),
    SongRequest(seconds=0.8, artist="#7", seed=2, total_seconds=30.0, offset_seconds=10.0),
]


def codes_of(model: OpenedModel, requests: list[SongRequest], out: Path, slots: int) -> list[list[list[int]]]:
    jobs = [SongJob(request, out / str(index)) for index, request in enumerate(requests)]
    sample(model, jobs, SamplingOptions(slots=slots))
    return [all_codes(job.folder) for job in jobs]


def check_slots_and_order(model: OpenedModel, requests: list[SongRequest], out: Path) -> None:
    expected = codes_of(model, requests, out / "1", slots=1)
    assert len({str(codes) for codes in expected}) == len(requests)
    for slots in (2, 4):
        assert codes_of(model, requests, out / str(slots), slots) == expected
    assert codes_of(model, requests[::-1], out / "reversed", slots=4) == expected[::-1]


def test_slots_and_order_do_not_matter(model: OpenedModel, primed: list[SongRequest], tmp_path: Path) -> None:
    check_slots_and_order(model, primed, tmp_path)


@pytest.mark.slow
def test_slots_and_order_do_not_matter_from_nothing(model: OpenedModel, tmp_path: Path) -> None:
    check_slots_and_order(model, ANCESTRAL, tmp_path)


def test_onnx_runtime_chooses_the_codes_of_pytorch(
    model: OpenedModel, eager: OpenedModel, primed: list[SongRequest], tmp_path: Path
) -> None:
    found = codes_of(model, primed[:2], tmp_path / "onnx", slots=2)
    assert found == codes_of(eager, primed[:2], tmp_path / "eager", slots=2)


@pytest.mark.slow
def test_onnx_runtime_chooses_the_codes_of_pytorch_from_nothing(
    model: OpenedModel, eager: OpenedModel, tmp_path: Path
) -> None:
    found = codes_of(model, ANCESTRAL[:1], tmp_path / "onnx", slots=1)
    assert found == codes_of(eager, ANCESTRAL[:1], tmp_path / "eager", slots=1)


def test_labels_seed_and_number_change_the_codes(model: OpenedModel, tmp_path: Path) -> None:
    base = SongRequest(seconds=0.3)
    others = [replace(base, seed=1), replace(base, song=1), replace(base, artist="#3"), replace(base, lyrics="oh no")]
    jobs = [SongJob(request, tmp_path / str(index)) for index, request in enumerate([base, *others])]
    sample(model, jobs, SamplingOptions(lowest_level=2))
    assert len({str(all_codes(job.folder)) for job in jobs}) == len(jobs)


def test_the_summary_tells_what_came_out(model: OpenedModel, tmp_path: Path) -> None:
    jobs = [SongJob(SongRequest(seconds=0.3, artist="glass harbor"), tmp_path / "song")]
    summary = sample(model, jobs, SamplingOptions(lowest_level=2))
    summary.draw_spectrograms()
    data = summary.to_json()
    (song,) = data["songs"]
    assert data["sampled_codes"] == {"2": 103}
    assert "glass harbour" in song["warnings"][0]
    audio, rate = soundfile.read(song["path"])
    assert (len(audio), rate) == (song["samples"], song["sample_rate"]) == (103 * 128, 44_100)
    assert 0 < np.abs(audio).max() == pytest.approx(song["peak"])
    assert Path(song["spectrogram"]).read_bytes().startswith(b"\x89PNG")


def test_the_summary_names_the_sounds_of_upper_levels(model: OpenedModel, tmp_path: Path) -> None:
    jobs = [SongJob(SongRequest(seconds=0.8), tmp_path / "song")]
    (song,) = sample(model, jobs, SamplingOptions(lowest_level=1, every_level=True)).to_json()["songs"]
    assert (song["path"], song["upper_levels"]) == (
        str(tmp_path / "song" / "level_1.wav"),
        [str(tmp_path / "song" / "level_2.wav")],
    )


def test_random_weights_make_audible_unclipped_sound(model: OpenedModel, primed: list[SongRequest], tmp_path: Path):
    for lowest_level in range(3):
        job = SongJob(primed[0], tmp_path / str(lowest_level))
        summary = sample(model, [job], SamplingOptions(lowest_level=lowest_level))
        audio, _ = soundfile.read(summary.sounds[0].path)
        assert 0.01 < np.sqrt(np.mean(audio**2)) < 0.3
        assert np.abs(audio).max() < 1.0


def test_a_song_goes_on_only_with_the_engine_that_began_it(
    model: OpenedModel, eager: OpenedModel, tmp_path: Path
) -> None:
    job = SongJob(SongRequest(seconds=0.3), tmp_path / "song")
    sample(model, [job], SamplingOptions(lowest_level=2))
    with pytest.raises(Exception, match="holds another song and cannot be resumed: engine was 'onnxruntime"):
        sample(eager, [job], SamplingOptions(lowest_level=2, resume=True))


@pytest.mark.parametrize(
    ("part", "other"),
    [("ready.platform.machine", lambda: "riscv64"), ("arithmetic._instructions", lambda: {"avx", "avx2"})],
)
def test_a_song_goes_on_only_with_the_kernels_of_the_processor_that_began_it(
    model: OpenedModel, part: str, other: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SongJob(SongRequest(seconds=0.3), tmp_path / "song")
    sample(model, [job], SamplingOptions(lowest_level=2))
    folder = model.engine._files["step_2"].parent  # type: ignore[attr-defined]  # of ONNX Runtime's engine
    monkeypatch.setattr(f"jukebox_deploy.engines.onnxruntime.{part}", other)
    with pytest.raises(SamplingError, match=r"engine was 'onnxruntime cpu .*', is now 'onnxruntime cpu .*'"):
        sample(open_model(folder), [job], SamplingOptions(lowest_level=2, resume=True))


def test_the_provider_and_the_version_belong_to_the_arithmetic(model: OpenedModel, eager: OpenedModel) -> None:
    assert model.fingerprint.engine.startswith(f"onnxruntime cpu {import_onnxruntime().__version__} ")
    assert eager.fingerprint.engine.startswith("eager cpu on ")


def copy_with(bundle: EngineBundle, folder: Path, **changes: object) -> Path:
    """The bundle again in another folder, with another manifest."""
    folder.mkdir()
    for name in bundle.manifest.files:
        (folder / name).hardlink_to(bundle.folder / name)
    write_manifest(folder, replace(bundle.manifest, **changes))  # type: ignore[arg-type]  # fields of a manifest
    return folder


def test_engines_are_run_by_what_they_were_made_for(tiny_engine_bundle: EngineBundle, tmp_path: Path) -> None:
    folder = copy_with(tiny_engine_bundle, tmp_path / "engines", target=Target.TENSORRT_RTX)
    with pytest.raises(EngineError, match="made for tensorrt-rtx; drop --backend onnxruntime"):
        open_model(folder, EngineChoice(Backend.ONNXRUNTIME))
    with pytest.raises(EngineError, match="made for onnxruntime; drop --backend tensorrt"):
        open_model(tiny_engine_bundle.folder, EngineChoice(Backend.TENSORRT))


@pytest.mark.parametrize(
    ("choice", "target", "option"),
    [
        (EngineChoice(provider="cuda"), Target.TENSORRT_RTX, "--provider"),
        (EngineChoice(Backend.EAGER, "tensorrt", checkpoint=Path()), Target.ONNXRUNTIME, "--provider"),
        (EngineChoice(threads=2), Target.TENSORRT, "--threads"),
        (EngineChoice(map_weights=True), Target.TENSORRT, "--map-weights"),
        (EngineChoice(cuda_graph=True), Target.ONNXRUNTIME, "--cuda-graph"),
        (EngineChoice(cuda_graph=False), Target.ONNXRUNTIME, "--no-cuda-graph"),
        (EngineChoice(tensorrt=TensorRtOptions()), Target.ONNXRUNTIME, "options of engines for TensorRT"),
        (EngineChoice(Backend.EAGER, checkpoint=Path(), cuda_graph=True), Target.TENSORRT, "--cuda-graph"),
        (EngineChoice(Backend.EAGER, checkpoint=Path(), cuda_graph=False), Target.ONNXRUNTIME, "--no-cuda-graph"),
        (EngineChoice(provider="tensorrt", cuda_graph=False), Target.ONNXRUNTIME, "--no-cuda-graph"),
        (EngineChoice(compiled=True), Target.ONNXRUNTIME, "--compile"),
        (EngineChoice(compiled=True), Target.TENSORRT, "--compile"),
    ],
)
def test_no_option_is_ignored(choice: EngineChoice, target: Target, option: str) -> None:
    with pytest.raises(EngineError, match=f"{option}.*: not supported by .*; drop it"):
        choice.settle(target)


@pytest.mark.parametrize(
    ("of_choice", "of_options", "expected"),
    [(None, None, None), (None, False, False), (None, True, True), (False, True, False), (True, None, True)],
)
def test_recording_of_steps_can_be_chosen_in_both_places(
    of_choice: bool | None, of_options: bool | None, expected: bool | None
) -> None:
    options = TensorRtOptions(cuda_graph=of_options, host_code=True)
    choice = EngineChoice(cuda_graph=of_choice, tensorrt=options)
    assert choice.settle(Target.TENSORRT).tensorrt_options == TensorRtOptions(cuda_graph=expected, host_code=True)


def test_what_is_left_open_is_settled_by_the_bundle() -> None:
    assert EngineChoice().settle(Target.ONNXRUNTIME) == EngineChoice(Backend.ONNXRUNTIME, "cpu")
    assert EngineChoice().settle(Target.TENSORRT) == EngineChoice(Backend.TENSORRT)
    replayed = EngineChoice(provider="cuda", cuda_graph=True)
    assert replayed.settle(Target.ONNXRUNTIME) == replace(replayed, backend=Backend.ONNXRUNTIME)
    by_pytorch = replace(replayed, backend=Backend.EAGER, checkpoint=Path())
    assert by_pytorch.settle(Target.TENSORRT) == by_pytorch


def test_the_weights_of_pytorch_must_be_those_of_the_bundle(tiny_engine_bundle: EngineBundle, tmp_path: Path) -> None:
    other = write_random_bundle("tiny", tmp_path / "other", seed=77)
    with pytest.raises(EngineError, match="was not made from"):
        open_model(tiny_engine_bundle.folder, EngineChoice(Backend.EAGER, checkpoint=other.folder))


def test_a_checkpoint_belongs_to_the_eager_backend(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="name it with --checkpoint"):
        EngineChoice(Backend.EAGER)
    with pytest.raises(EngineError, match="drop --checkpoint"):
        EngineChoice(Backend.ONNXRUNTIME, checkpoint=tmp_path)
    with pytest.raises(EngineError, match="drop --map-weights"):
        EngineChoice(Backend.EAGER, checkpoint=tmp_path, map_weights=True)
    with pytest.raises(EngineError, match=r"provider cuda copies weights.*drop --map-weights"):
        EngineChoice(provider="cuda", map_weights=True)


def test_integer_weights_cannot_stay_mapped(tiny_engine_bundle: EngineBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = replace(tiny_engine_bundle.manifest, linear_weights=LinearWeights.INT8)
    integers = replace(tiny_engine_bundle, manifest=manifest)
    monkeypatch.setattr("jukebox_deploy.jobs.sample_job.open_bundle", lambda folder: integers)
    with pytest.raises(EngineError, match="int8 weights, which are always packed; drop --map-weights"):
        open_model(tiny_engine_bundle.folder, EngineChoice(map_weights=True))


def test_mapped_weights_choose_the_same_codes(
    model: OpenedModel,
    tiny_engine_bundle: EngineBundle,
    primed: list[SongRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a small model. A larger one may differ, so a song does not go on with the other arithmetic."""
    monkeypatch.setattr("jukebox_deploy.engines.onnxruntime.sessions.LARGE_WEIGHTS", 0)
    monkeypatch.setattr("jukebox_deploy.engines.onnxruntime.mapped_products.SMALLEST", 0)
    mapped = open_model(tiny_engine_bundle.folder, EngineChoice(threads=2, map_weights=True))
    assert mapped.fingerprint != model.fingerprint
    found = codes_of(mapped, primed[:1], tmp_path / "mapped", slots=1)
    assert found == codes_of(model, primed[:1], tmp_path / "packed", slots=1)
