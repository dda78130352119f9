"""What a model says of how it is best sampled is read, carried along and followed where nothing else is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.sampling_advice import (
    NO_ADVICE,
    SAMPLING_FILE,
    SamplingAdvice,
    bundle_advice,
    engine_advice,
    joined_advice,
    read_advice,
)
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from jukebox_deploy.jobs.training.bundle import join_bundles
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from tests.engines.handmade_graphs import save_bundle

COOL, WARM = LevelSettings(0.8), LevelSettings(1.1, top_p=0.9)
ADVICE = SamplingAdvice((COOL, COOL, WARM), total_seconds=30.0)


def write(folder: Path, advice: SamplingAdvice = ADVICE) -> Path:
    for name, data in advice.as_file().items():
        (folder / name).write_text(json.dumps(data))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_advice(write(tmp_path), 3) == ADVICE
    assert read_advice(write(tmp_path, SamplingAdvice(total_seconds=9.0)), 3).all_settings(2) == (LevelSettings(),) * 2


def test_without_a_file_there_is_no_advice(tmp_path: Path) -> None:
    assert read_advice(tmp_path, 3) == NO_ADVICE
    assert NO_ADVICE.all_settings(2) == (LevelSettings(),) * 2
    assert (NO_ADVICE.to_json(), NO_ADVICE.as_file()) == (None, {})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "[" * 100_000,
        "null",
        '{"levels": 3}',
        '{"levels": [{"temperature": -1}, {}]}',
        '{"levels": [{}]}',
        '{"levels": [{"heat": 1}, {}]}',
        '{"total_seconds": 0}',
        '{"total_seconds": Infinity}',
    ],
)
def test_advice_that_cannot_be_followed_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / SAMPLING_FILE).write_text(text)
    with pytest.raises(SamplingError, match=SAMPLING_FILE):
        read_advice(tmp_path, 2)


ASKED = SongRequest(seconds=20.0, offset_seconds=5.0)


@pytest.mark.parametrize(
    ("request_", "given", "total"),
    [
        (ASKED, (), 30.0),
        (replace(ASKED, seconds=25.0), (), 30.0),
        (replace(ASKED, seconds=25.1), (), None),
        (ASKED, ("total_seconds",), None),
        (replace(ASKED, total_seconds=60.0), ("total_seconds",), 60.0),
        (replace(ASKED, mode=Mode.PRIMED, source="a.wav"), (), 30.0),
        (replace(ASKED, mode=Mode.CONTINUE, source="song"), (), None),
        (replace(ASKED, mode=Mode.UPSAMPLE, source="song", total_seconds=25.0), (), 25.0),
    ],
)
def test_songs_are_as_long_as_the_model_likes(
    request_: SongRequest, given: tuple[str, ...], total: float | None
) -> None:
    assert ADVICE.with_length(request_, given) == replace(request_, total_seconds=total)


def test_priors_that_are_joined_keep_their_settings() -> None:
    other = SamplingAdvice((WARM, WARM, COOL), total_seconds=8.0)
    assert joined_advice(3, {2: ADVICE, 0: other}) == SamplingAdvice((WARM, LevelSettings(), WARM), 30.0)
    assert joined_advice(3, {2: NO_ADVICE, 1: ADVICE}) == SamplingAdvice((LevelSettings(), COOL, LevelSettings()))
    assert joined_advice(3, {2: NO_ADVICE}) == joined_advice(3, {}) == NO_ADVICE


@pytest.fixture(scope="module")
def advised(tmp_path_factory: pytest.TempPathFactory) -> CheckpointBundle:
    """`tiny`, with advice beside it."""
    bundle = write_random_bundle("tiny", tmp_path_factory.mktemp("model") / "tiny")
    before = bundle.fingerprint()
    write(bundle.folder)
    assert bundle.fingerprint() == before
    return bundle


def test_a_joined_bundle_has_the_advice_of_its_parts(advised: CheckpointBundle, tmp_path: Path) -> None:
    assert bundle_advice(join_bundles([advised], tmp_path / "joined")) == ADVICE


def test_an_exported_bundle_has_the_advice_in_its_manifest(advised: CheckpointBundle, tmp_path: Path) -> None:
    request = ExportRequest(graphs=("vqvae_decode_2",), validate=False, tensorrt=TensorRtCheck.NEVER, processes=1)
    manifest = export_bundle(advised, tmp_path / "onnx", request)
    assert manifest.sampling == ADVICE.to_json()


def test_advice_that_cannot_be_followed_is_not_exported(tmp_path: Path) -> None:
    bundle = write_random_bundle("tiny", tmp_path / "tiny")
    (bundle.folder / SAMPLING_FILE).write_text('{"levels": [{}]}')
    with pytest.raises(SamplingError, match="settings for 1 levels, and the model has 3"):
        export_bundle(bundle, tmp_path / "onnx", ExportRequest())
    assert not (tmp_path / "onnx").exists()


def test_engine_bundles_say_what_their_manifest_does(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "onnx")
    assert engine_advice(bundle) == NO_ADVICE
    for sampling, found in ((ADVICE.to_json(), ADVICE), ({}, NO_ADVICE)):
        assert engine_advice(replace(bundle, manifest=replace(bundle.manifest, sampling=sampling))) == found
    odd = replace(bundle, manifest=replace(bundle.manifest, sampling={"levels": [{}, {}]}))
    with pytest.raises(SamplingError, match=r"manifest.json: settings for 2 levels"):
        engine_advice(odd)
