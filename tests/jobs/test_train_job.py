from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import LabelRules
from jukebox_deploy.errors import CheckpointError, ConfigError, DataError, TrainingError
from jukebox_deploy.jobs.sampling_advice import SAMPLING_FILE, SamplingAdvice, bundle_advice
from jukebox_deploy.jobs.train_job import TrainingSummary, train
from jukebox_deploy.jobs.training import vqvae as train_vqvae
from jukebox_deploy.jobs.training.bundle import join_bundles
from jukebox_deploy.jobs.training.prior import PriorTraining
from jukebox_deploy.jobs.training.request import TrainingEvent, TrainRequest
from jukebox_deploy.models.losses import LossSettings
from jukebox_deploy.training.settings import Cadence, OptimiserSettings, Part, RunSettings
from jukebox_deploy.training.trainer import TrainedWeights
from jukebox_deploy.training.workers import Workers

SONGS = {
    "a.flac": ("The Tin Foxes", "Folk", "la la"),
    "b.wav": ("Glass Harbour", "Waltz", "oh"),
    "c.flac": ("", "", ""),
}
SECONDS = 3.0


@pytest.fixture(scope="module", autouse=True)
def short_looks() -> Iterator[None]:
    """Fewer and shorter crops to look at: sixteen of four seconds at 44.1 kHz take longer than everything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_vqvae, "_ASSESSED_CROPS", 3)
        patch.setattr(train_vqvae, "_ASSESSED_SECONDS", 0.5)
        yield


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short songs with labels."""
    folder = tmp_path_factory.mktemp("songs")
    time = np.arange(int(44_100 * SECONDS)) / 44_100
    for number, name in enumerate(SONGS):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * time) * (1 + 0.5 * np.sin(7 * time))
        soundfile.write(folder / name, tone.astype(np.float32), 44_100)
    rows = [{"file": n, "artist": a, "genres": [g] if g else [], "lyrics": w} for n, (a, g, w) in SONGS.items()]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def request(part: Part, data: Path, out: Path, **changes: object) -> TrainRequest:
    """Two steps of a part of `tiny`."""
    level = changes.pop("level", None)
    optimiser = OptimiserSettings(learning_rate=1e-3, warm_up=1)
    settings = RunSettings(part, steps=2, batch=2, level=level, seconds=0.1, optimiser=optimiser)  # type: ignore[arg-type]
    return replace(TrainRequest(settings, data, out, preset="tiny"), **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def vqvae_run(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A VQ-VAE that was trained for two steps."""
    return train(request(Part.VQVAE, songs, tmp_path_factory.mktemp("runs") / "vqvae"))


@pytest.fixture(scope="module")
def prior_run(songs: Path, vqvae_run: TrainingSummary) -> TrainingSummary:
    """A top prior on its codes."""
    out = vqvae_run.folder.parent / "top"
    return train(request(Part.PRIOR, songs, out, bundle=vqvae_run.folder / "bundle"))


def test_a_vqvae_leaves_numbers_sounds_pictures_and_a_bundle(vqvae_run: TrainingSummary) -> None:
    assert {f"snr_decibel_{level}" for level in range(3)} <= vqvae_run.held_out.keys()
    report = vqvae_run.folder / "reports" / "00000002"
    names = {path.name for path in report.iterdir()}
    assert {"crop_0.png", "crop_0_original.flac", "crop_0_level_0.flac", "crop_0_level_2.flac"} <= names
    header, *rows = (vqvae_run.folder / "log.csv").read_text().splitlines()
    assert header.startswith("step,loss,")
    assert header.endswith(",waited_for_data")
    assert all(0 <= float(row.rpartition(",")[2]) <= 1 for row in rows)
    assert 0 <= vqvae_run.waited <= vqvae_run.seconds
    assert (vqvae_run.folder / "held_out.csv").read_text().startswith("step,snr_decibel_0,")
    bundle = CheckpointBundle.open(vqvae_run.folder / "bundle")
    assert bundle.source["format"] == "trained"
    assert bundle.tensors("vqvae").load("codebooks.2.codes").abs().sum() > 0


def test_a_prior_learns_the_names_in_the_songs_labels(prior_run: TrainingSummary) -> None:
    bundle = CheckpointBundle.open(prior_run.folder / "bundle")
    lists = bundle.vocabulary.lists[LabelRules.NAMES]
    assert lists.artists == {"unknown": 0, "glass harbour": 1, "the tin foxes": 2}
    assert lists.genres == {"unknown": 0, "folk": 1, "waltz": 2}
    assert [prior.level for prior in bundle.config.priors] == [2]
    assert 0 < prior_run.held_out["bits"] < 30
    names = {path.name for path in (prior_run.folder / "reports" / "00000002").iterdir()}
    assert {"song_0.png", "song_0_song.flac", "song_0_sampled.flac"} <= names


def test_what_held_out_songs_cost_does_not_depend_on_the_batch(songs: Path, prior_run: TrainingSummary) -> None:
    assert prior_run.bundle is not None
    weights = prior_run.bundle.tensors("prior_2")
    trained = TrainedWeights({name: weights.load(name) for name in weights.infos}, {})
    places = {"bundle": prior_run.folder.parent / "vqvae" / "bundle", "codes": prior_run.folder.parent / "top-codes"}
    found = []
    for batch in (1, 2, 16):
        asked = request(Part.PRIOR, songs, prior_run.folder, **places)
        asked = replace(asked, settings=replace(asked.settings, batch=batch, train_fraction=0.5))
        found.append(PriorTraining(asked, Workers(), lambda event: None).assess(trained))
    assert found[0]["bits"] > 0
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("part", [Part.VQVAE, Part.PRIOR])
def test_without_held_out_songs_there_are_no_such_metrics_and_a_warning(
    songs: Path, vqvae_run: TrainingSummary, tmp_path: Path, part: Part
) -> None:
    asked = request(part, songs, tmp_path / "run", bundle=vqvae_run.folder / "bundle")
    if part is Part.VQVAE:
        asked = replace(asked, bundle=None)
    events: list[TrainingEvent] = []
    summary = train(replace(asked, settings=replace(asked.settings, train_fraction=1.0)), events.append)
    warnings = [event.warning for event in events if event.warning]
    assert len(warnings) == 1
    assert warnings[0].startswith("no song is held out (3 in all)")
    assert summary.held_out == {}
    assert not (summary.folder / "held_out.csv").exists()
    assert any((summary.folder / "reports" / "00000002").glob("*.flac"))


def test_parts_that_were_trained_apart_make_one_bundle(
    songs: Path, vqvae_run: TrainingSummary, prior_run: TrainingSummary, tmp_path: Path
) -> None:
    bundles = {"bundle": vqvae_run.folder / "bundle", "codes": vqvae_run.folder.parent / "top-codes"}
    upsampler = train(request(Part.UPSAMPLER, songs, tmp_path / "up", level=1, **bundles))
    assert upsampler.bundle is not None
    assert prior_run.bundle is not None
    whole = join_bundles([upsampler.bundle, prior_run.bundle], tmp_path / "whole", dtype=torch.float16)
    assert whole.components == ("vqvae", "prior_1", "prior_2")
    for component, part in {"prior_1": upsampler.bundle, "prior_2": prior_run.bundle}.items():
        for name in part.tensors(component).infos:
            assert torch.equal(whole.tensors(component).load(name), part.tensors(component).load(name).half()), name
    with pytest.raises(CheckpointError, match="both have prior_2"):
        join_bundles([prior_run.bundle, prior_run.bundle], tmp_path / "twice")
    tuned = replace(request(Part.PRIOR, songs, tmp_path / "tuned", **bundles), settings=_seeded(Part.PRIOR, 1))
    other_prior = train(tuned).bundle
    assert other_prior is not None
    again = join_bundles([upsampler.bundle, prior_run.bundle, other_prior], tmp_path / "again", later_wins=True)
    name = "core.position_embedding"
    assert torch.equal(again.tensors("prior_2").load(name), other_prior.tensors("prior_2").load(name))
    assert not torch.equal(again.tensors("prior_2").load(name), prior_run.bundle.tensors("prior_2").load(name))
    other = train(replace(request(Part.VQVAE, songs, tmp_path / "other"), settings=_seeded(Part.VQVAE, 1)))
    assert other.bundle is not None
    with pytest.raises(CheckpointError, match="different VQ-VAEs"):
        join_bundles([other.bundle, prior_run.bundle], tmp_path / "mixed")


def _seeded(part: Part, seed: int) -> RunSettings:
    return replace(request(part, Path(), Path()).settings, seed=seed)


@pytest.mark.parametrize("part", [Part.VQVAE, Part.PRIOR])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    songs: Path, vqvae_run: TrainingSummary, tmp_path: Path, part: Part
) -> None:
    base = request(part, songs, tmp_path / "whole", cadence=Cadence(log_steps=1))
    if part is Part.PRIOR:
        base = replace(base, bundle=vqvae_run.folder / "bundle", codes=vqvae_run.folder.parent / "top-codes")
    base = replace(base, settings=replace(base.settings, steps=4))
    whole = train(base)
    cut = replace(base, out=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, _interrupting(2))
    assert [path.name for path in (cut.out / "checkpoints").iterdir()] == ["00000002"]
    resumed = train(replace(cut, resume=True))
    assert resumed.held_out == whole.held_out
    assert (cut.out / "held_out.csv").read_text() == (base.out / "held_out.csv").read_text()
    first, second = (summary.bundle for summary in (whole, resumed))
    assert first is not None
    assert second is not None
    component = first.components[-1]
    for name in first.tensors(component).infos:
        assert torch.equal(first.tensors(component).load(name), second.tensors(component).load(name)), name


def test_a_run_that_becomes_longer_is_the_longer_run(songs: Path, tmp_path: Path) -> None:
    def run_of(steps: int, anneal: int, folder: str) -> TrainRequest:
        base = request(Part.VQVAE, songs, tmp_path / folder, cadence=Cadence(log_steps=1))
        optimiser = replace(base.settings.optimiser, anneal=anneal)
        return replace(base, settings=replace(base.settings, steps=steps, optimiser=optimiser))

    whole = train(run_of(4, 2, "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(run_of(3, 1, "cut"), _interrupting(2))
    resumed = train(replace(run_of(4, 2, "cut"), resume=True))
    assert resumed.held_out == whole.held_out


def _interrupting(step: int) -> Callable[[TrainingEvent], None]:
    def listen(event: TrainingEvent) -> None:
        if event.action == "training" and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return listen


def test_fine_tuning_keeps_rows_of_known_names_and_grows_tables(
    songs: Path, prior_run: TrainingSummary, tmp_path: Path
) -> None:
    ids = tmp_path / "ids"
    ids.mkdir()
    artists = ["unknown", *(f"band {n}" for n in range(20)), "the tin foxes"]
    (ids / "v3_artist_ids.txt").write_text("".join(f"{name};{n}\n" for n, name in enumerate(artists)))
    (ids / "v3_genre_ids.txt").write_text("unknown;0\nfolk;1\n")
    advised = shutil.copytree(prior_run.folder / "bundle", tmp_path / "advised")
    (advised / SAMPLING_FILE).write_text('{"total_seconds": 60.0}')
    tuned = train(
        request(
            Part.PRIOR,
            songs,
            tmp_path / "tuned",
            preset=None,
            bundle=advised,
            fine_tune=True,
            vocabulary=ids,
            codes=prior_run.folder.parent / "top-codes",
        )
    )
    assert tuned.bundle is not None
    assert prior_run.bundle is not None
    assert tuned.bundle.config.priors[0].labels is not None
    assert tuned.bundle.config.priors[0].labels.artists == 22
    before, after = (b.tensors("prior_2").load("labels.artist.weight") for b in (prior_run.bundle, tuned.bundle))
    torch.testing.assert_close(after[21], before[2], atol=0.01, rtol=0)
    torch.testing.assert_close(after[5], before[0], atol=0.01, rtol=0)
    # Its record tells of both runs, also once parts were put together.
    assert tuned.bundle.source["began_with"] == prior_run.bundle.source
    assert "began_with" not in prior_run.bundle.source
    again = join_bundles([join_bundles([tuned.bundle], tmp_path / "joined")], tmp_path / "again")
    assert again.source["parts"]["prior_2"] == tuned.bundle.source
    # How it is best sampled goes along.
    assert bundle_advice(again) == bundle_advice(tuned.bundle) == SamplingAdvice(total_seconds=60.0)


@pytest.mark.parametrize(
    ("level", "batch", "threshold"),
    [(0, 2, 0.0), (2, 4, 1.0)],
    ids=["many latents", "fewer latents per example than codes"],
)
def test_a_fine_tuned_codebook_goes_on_from_its_codes(
    songs: Path, vqvae_run: TrainingSummary, tmp_path: Path, level: int, batch: int, threshold: float
) -> None:
    bundle = vqvae_run.folder / "bundle"
    base = request(Part.VQVAE, songs, tmp_path / "tuned", preset=None, bundle=bundle, fine_tune=True)
    gentle = OptimiserSettings(learning_rate=1e-9)
    settings = replace(base.settings, optimiser=gentle, revival_threshold=threshold, batch=batch)
    tuned = train(replace(base, settings=settings))
    assert tuned.bundle is not None
    assert vqvae_run.bundle is not None
    name = f"codebooks.{level}.codes"
    before, after = (run.tensors("vqvae").load(name) for run in (vqvae_run.bundle, tuned.bundle))
    # A codebook that began anew would hold other latents; this one has moved by two steps of its moving average.
    assert torch.linalg.vector_norm(after - before) < 0.2 * torch.linalg.vector_norm(before)


@pytest.mark.parametrize("anew", [False, True])
def test_levels_that_are_not_trained_stay_as_they_are(
    songs: Path, vqvae_run: TrainingSummary, prior_run: TrainingSummary, tmp_path: Path, anew: bool
) -> None:
    bundle = vqvae_run.folder / "bundle"
    base = request(Part.VQVAE, songs, tmp_path / "level", preset=None, bundle=bundle, fine_tune=True)
    trained = train(replace(base, settings=replace(base.settings, levels=(1,), anew=anew))).bundle
    assert trained is not None
    assert vqvae_run.bundle is not None
    before, after = (run.tensors("vqvae") for run in (vqvae_run.bundle, trained))
    for name in before.infos:
        same = torch.equal(before.load(name), after.load(name))
        assert same == (name.split(".")[1] != "1"), name
    # The top prior knows nothing of the level below its own, so it goes with the new one.
    assert prior_run.bundle is not None
    whole = join_bundles([trained, prior_run.bundle], tmp_path / "whole")
    assert torch.equal(whole.tensors("vqvae").load("codebooks.1.codes"), after.load("codebooks.1.codes"))


class TestRefusals:
    def test_levels_without_a_bundle(self, songs: Path, tmp_path: Path) -> None:
        base = request(Part.VQVAE, songs, tmp_path / "run")
        with pytest.raises(ConfigError, match="those that are not trained come from a checkpoint bundle"):
            train(replace(base, settings=replace(base.settings, levels=(1,))))
        with pytest.raises(ConfigError, match="there is no level 3; tiny has levels 0 to 2"):
            train(replace(base, settings=replace(base.settings, levels=(3,))))
        with pytest.raises(ConfigError, match="name the levels that begin anew"):
            train(replace(base, settings=replace(base.settings, anew=True)))

    def test_a_prior_without_a_vqvae(self, songs: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="name the checkpoint bundle that has it"):
            train(request(Part.PRIOR, songs, tmp_path / "run"))

    def test_an_upsampler_of_the_top(self, songs: Path, vqvae_run: TrainingSummary, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="an upsampler is at level 0 to 1, found 2"):
            train(request(Part.UPSAMPLER, songs, tmp_path / "run", level=2, bundle=vqvae_run.folder / "bundle"))

    def test_no_songs(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no sound files here"):
            train(request(Part.VQVAE, tmp_path / "empty", tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    def test_a_run_of_another_preset(self, songs: Path, vqvae_run: TrainingSummary) -> None:
        wanted = replace(request(Part.VQVAE, songs, vqvae_run.folder), preset="mid", resume=True)
        with pytest.raises(TrainingError, match=r"the model is not the same \(mid, and was tiny\)"):
            train(wanted)

    def test_a_waveform_weight_of_a_level_that_is_not_there(self, songs: Path, tmp_path: Path) -> None:
        asked = request(Part.VQVAE, songs, tmp_path / "run")
        loss = LossSettings(waveform=(1.0, 1.0, 1.0, 0.1))
        with pytest.raises(ConfigError, match="there is no level 3; tiny has levels 0 to 2"):
            train(replace(asked, settings=replace(asked.settings, loss=loss)))
        assert not (tmp_path / "run").exists()

    def test_nothing_named(self, songs: Path, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="name the model to train"):
            train(request(Part.VQVAE, songs, tmp_path / "run", preset=None))
