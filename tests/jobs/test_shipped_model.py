"""The model that comes with a clone is whole, small, and as good as is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks.documents.model_card import ONE_SONG
from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig, LabelRules
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.corpus import CorpusRequest, synthesize_corpus
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.data.synthesis.score import Arrangement
from jukebox_deploy.data.synthesis.song_files import CorpusIdentity
from jukebox_deploy.jobs.evaluate_job import EvaluationRequest, evaluate
from jukebox_deploy.jobs.evaluation.data import DataChoice
from jukebox_deploy.jobs.sampling_advice import read_advice
from jukebox_deploy.jobs.shipped_model import PROMPT_FILE, SHIPPED, shipped_model
from jukebox_deploy.presets import preset
from jukebox_deploy.runtime.audio import read_prompt
from tests.source_tree import REPOSITORY

MEGABYTE = 1_000_000
SAMPLES = REPOSITORY / "docs" / "samples"

shipped = pytest.mark.skipif(shipped_model() is None, reason="there is no model in models/small_demo")


def test_a_folder_without_a_model_is_none(tmp_path: Path) -> None:
    assert shipped_model(tmp_path) is None
    (tmp_path / "config.json").touch()
    assert shipped_model(tmp_path) == tmp_path


def test_the_shipped_advice_and_prompt_fit_the_preset() -> None:
    vqvae = preset("small_demo").vqvae
    assert read_advice(SHIPPED, vqvae.levels).total_seconds
    prompt = read_prompt(SHIPPED / PROMPT_FILE, vqvae.sample_rate, vqvae.hop_length(vqvae.levels - 1))
    assert len(prompt) == round(2.048 * vqvae.sample_rate)


@pytest.fixture(scope="module")
def bundle() -> CheckpointBundle:
    return CheckpointBundle.open(SHIPPED)


@shipped
def test_it_is_the_preset_but_for_its_tables_of_names(bundle: CheckpointBundle) -> None:
    assert without_tables(bundle.config) == without_tables(preset("small_demo"))
    assert [prior.level for prior in bundle.config.priors] == [0, 1, 2]


def without_tables(config: JukeboxConfig) -> JukeboxConfig:
    priors = (
        replace(prior, labels=replace(prior.labels, artists=1, genres=1)) for prior in config.priors if prior.labels
    )
    return replace(config, priors=tuple(priors))


@shipped
def test_it_knows_the_artists_and_genres_of_the_corpus(bundle: CheckpointBundle) -> None:
    names = bundle.vocabulary.lists[LabelRules.NAMES]
    assert set(names.artists) == {"unknown", *ARTISTS}
    assert set(names.genres) == {"unknown", *GENRES}


@shipped
def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 12 * MEGABYTE


@shipped
def test_the_samples_are_its_own_and_small(bundle: CheckpointBundle) -> None:
    assert f"checkpoint {bundle.fingerprint()[:12]}" in (SAMPLES / "README.md").read_text(), (
        "make the samples anew: python -m jukebox_deploy.cli.samples_page --force"
    )
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 2 * MEGABYTE


@shipped
def test_it_predicts_a_song_that_it_has_not_met_as_well_as_was_recorded(tmp_path: Path) -> None:
    record = REPOSITORY / "benchmarks" / "results" / ONE_SONG
    recorded = {prior["level"]: prior for prior in json.loads(record.read_text())["bundles"][0]["priors"]}
    folder = tmp_path / "song"
    identity = CorpusIdentity(seed=52, rate=8000, grid=0.032, arrangement=Arrangement.ANSWERED)
    synthesize_corpus(CorpusRequest(folder, identity, songs=1, processes=1))
    # As in the command that is given beside ONE_SONG.
    choice = DataChoice(folder, held_out=False, windows=4, coded_songs=1, seconds=5.0)
    (result,) = evaluate(EvaluationRequest((SHIPPED,), choice)).bundles
    for prior in result.priors:
        assert prior.score is not None
        before = recorded[prior.level]
        assert prior.windows == before["windows"]
        assert prior.score.music.bits_per_token == pytest.approx(before["bits_per_token"], rel=0.03)
