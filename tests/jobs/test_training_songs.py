"""Songs that a training run cannot use: it says so once, before it begins, and does not end because of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.config import LabelConfig, LabelRules, TimingConfig
from jukebox_deploy.data.catalogue import CatalogueFilters, SkippedFile
from jukebox_deploy.errors import ConfigError, DataError, LabelError, TrainingError
from jukebox_deploy.jobs.evaluation.token_scoring import score_with_model
from jukebox_deploy.jobs.train_job import train
from jukebox_deploy.jobs.training import vqvae as train_vqvae
from jukebox_deploy.jobs.training.left_out import first_warnings, left_out_warnings
from jukebox_deploy.jobs.training.prior import PriorTraining
from jukebox_deploy.jobs.training.request import Songs, TrainingEvent, TrainRequest
from jukebox_deploy.jobs.training.vqvae import VQVAETraining
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.training.settings import OptimiserSettings, Part, RunSettings
from jukebox_deploy.training.trainer import TrainedWeights
from jukebox_deploy.training.workers import Workers
from tests.data.song_folders import cut_off, noise, write_sound, write_table
from tests.export.small_models import unlabelled_config, write_checkpoint
from tests.jobs.small_evaluation import RATE, VOCABULARY, prior_of

TRAINED, HELD_OUT = ("0.wav", "1.wav", "3.wav"), ("2.wav", "s5.wav")
"""By the hashes of their names."""


@pytest.fixture(autouse=True)
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few short crops in reports, which would otherwise take longer than everything else."""
    monkeypatch.setattr(train_vqvae, "_ASSESSED_CROPS", 2)
    monkeypatch.setattr(train_vqvae, "_ASSESSED_SECONDS", 0.1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one level, for songs of 0.1 to 0.4 s, with the artists Ann and Bob."""
    config = unlabelled_config()
    timing = TimingConfig(bins=4, min_duration=0.1, max_duration=0.4)
    labels = LabelConfig(LabelRules.NAMES, artists=5, genres=4, genre_slots=1, timing=timing)
    config = replace(config, priors=(replace(prior_of(config), labels=labels),))
    return write_checkpoint(config, tmp_path_factory.mktemp("model") / "bundle", vocabulary=VOCABULARY).folder


def write_songs(folder: Path, seconds: dict[str, float] | None = None, rate: int = RATE) -> Path:
    """Songs by Ann, a quarter of a second each unless another length is given."""
    lengths = dict.fromkeys((*TRAINED, "2.wav"), 0.25) | (seconds or {})
    for number, (name, length) in enumerate(lengths.items()):
        write_sound(folder / name, noise(length, number, rate), rate)
    write_table(folder, [{"file": name, "artist": "Ann"} for name in lengths])
    return folder


def fine_tuning(part: Part, folder: Path, bundle: Path, **changes: object) -> TrainRequest:
    """One step from the weights of the bundle, on the songs in a folder."""
    settings = RunSettings(part, steps=1, batch=1, seconds=0.1, optimiser=OptimiserSettings(warm_up=1))
    request = TrainRequest(settings, folder / "songs", folder / "run", bundle=bundle, fine_tune=True)
    return replace(request, filters=CatalogueFilters(min_seconds=0.0), **changes)  # type: ignore[arg-type]  # any field


def vqvae_part(request: TrainRequest) -> VQVAETraining:
    return VQVAETraining(request, Workers(), lambda event: None)


def prior_part(request: TrainRequest) -> PriorTraining:
    return PriorTraining(request, Workers(), lambda event: None)


def weights_of(part: VQVAETraining | PriorTraining) -> TrainedWeights:
    trainer = part.trainer()
    list(trainer.steps())
    return trainer.averaged()


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ()),
        (1, ("1 file is left out of training: 0.wav (too short).",)),
        (3, ("3 files are left out of training: 0.wav (too short), 1.wav (too short), 2.wav (too short).",)),
        (9, ("9 files are left out of training: 0.wav (too short), 1.wav (too short), 2.wav (too short) and 6 more.",)),
    ],
)
def test_the_first_files_are_named_with_the_reasons(count: int, expected: tuple[str, ...]) -> None:
    files = [SkippedFile(f"{number}.wav", "too short" if number else "too short.") for number in range(count)]
    assert left_out_warnings(files, "training") == expected


def test_the_first_warnings_are_given_in_full() -> None:
    assert first_warnings(["a", "b", "c"], "labels") == ("a", "b", "c")
    assert first_warnings(["a", "b", "c", "d"], "labels") == ("a", "b", "c", "1 more warning about labels.")
    assert first_warnings(list("abcde"), "labels")[-1] == "2 more warnings about labels."


@pytest.mark.parametrize("part", [Part.VQVAE, Part.PRIOR])
def test_what_a_run_leaves_out_is_told_once_before_it_begins(part: Part, bundle: Path, tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", {"1.wav": 0.001, "s5.wav": 0.001})
    (songs / "text.wav").write_text("la la la")
    events: list[TrainingEvent] = []
    summary = train(fine_tuning(part, tmp_path, bundle), events.append)
    reason = "too short, 0.00 s for " + ("crops of 0.10 s" if part is Part.VQVAE else "windows of 0.00 s")
    warnings = [event.warning for event in events if event.warning]
    unusable, of_training, of_held_out = warnings
    assert unusable.startswith("1 file is left out of this run: text.wav (is not a sound file that can be read")
    assert of_training == f"1 file is left out of training: 1.wav ({reason})."
    assert of_held_out == f"1 file is left out of the held-out metrics and reports: s5.wav ({reason})."
    actions = [event.action for event in events if event.action != "encoding songs"]
    assert actions[:4] == ["warning", "warning", "warning", "training"]
    assert summary.held_out


@pytest.mark.parametrize("part", [Part.VQVAE, Part.PRIOR])
def test_a_run_whose_songs_are_all_used_says_nothing(part: Part, bundle: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "songs")
    request = fine_tuning(part, tmp_path, bundle)
    assert (vqvae_part if part is Part.VQVAE else prior_part)(request).warnings == ()


@pytest.mark.parametrize("part", [Part.VQVAE, Part.PRIOR])
def test_held_out_songs_that_are_all_too_short(part: Part, bundle: Path, tmp_path: Path) -> None:
    """The run has no held-out metrics, and reports on songs that it is trained on."""
    write_songs(tmp_path / "songs", {"2.wav": 0.001, "s5.wav": 0.002})
    events: list[TrainingEvent] = []
    summary = train(fine_tuning(part, tmp_path, bundle), events.append)
    (warning,) = [event.warning for event in events if event.warning]
    assert warning.startswith("there are no held-out metrics, and reports are about songs that are trained on")
    if part is Part.VQVAE:
        assert "the longest of the 2 held-out songs has 0.002 s, and their spectra need 0.024 s" in warning
    else:
        assert "None of 2 songs can be used to train prior 0. The first, 2.wav: too short" in warning
    assert summary.held_out == {}
    assert any((summary.folder / "reports" / "00000001").glob("*.flac"))


@pytest.mark.parametrize(("samples", "used"), [(1024, False), (1026, True)])
def test_songs_too_short_for_spectral_convergence_are_not_assessed(
    samples: int, used: bool, bundle: Path, tmp_path: Path
) -> None:
    write_songs(tmp_path / "songs", {"s5.wav": samples / RATE})
    part = vqvae_part(fine_tuning(Part.VQVAE, tmp_path, bundle))
    assert any("s5.wav" in warning for warning in part.warnings) is not used
    assert np.isfinite(part.assess(weights_of(part))["spectral_convergence_0"])


@pytest.mark.parametrize("seconds", [0.001, 0.04])
def test_examples_too_short_for_the_losses_are_refused(seconds: float, bundle: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "songs")
    request = fine_tuning(Part.VQVAE, tmp_path, bundle)
    with pytest.raises(TrainingError, match=r"but the losses need 2048; give 0\.047 s or more"):
        vqvae_part(replace(request, settings=replace(request.settings, seconds=seconds)))
    vqvae_part(replace(request, settings=replace(request.settings, seconds=0.047)))


def test_held_out_songs_that_cannot_be_read_are_refused_before_training(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs = write_songs(tmp_path / "songs")
    request, read = fine_tuning(Part.VQVAE, tmp_path, bundle), Songs.read

    def read_and_damage(request: TrainRequest) -> Songs:
        found = read(request)
        cut_off(songs / "2.wav", 0.01)
        return found

    monkeypatch.setattr(Songs, "read", read_and_damage)
    with pytest.raises(DataError, match="None of 33 crops could be read"):
        vqvae_part(request)


def test_a_folder_with_nothing_but_unusable_files_is_refused_with_the_reasons(bundle: Path, tmp_path: Path) -> None:
    write_sound(tmp_path / "songs" / "silent.wav", np.zeros(4410, np.float32), RATE)
    with pytest.raises(DataError, match=r"none of 1 files can be used: silent\.wav \(silent"):
        vqvae_part(fine_tuning(Part.VQVAE, tmp_path, bundle))


def test_a_song_that_cannot_be_encoded_is_named_with_the_reason(bundle: Path, tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs", {"1.wav": 0.3})
    data = bytearray((songs / "1.wav").read_bytes())
    data[4096:4100] = np.float32("nan").tobytes()
    (songs / "1.wav").write_bytes(data)
    request = fine_tuning(Part.PRIOR, tmp_path, bundle)
    warnings = prior_part(request).warnings
    assert len(warnings) == 1
    assert "not finite" in warnings[0]


def test_labels_that_a_prior_does_not_know_are_told(bundle: Path, tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs")
    artists = ("Cid", "Dan", "Eve")
    write_table(songs, [{"file": name, "artist": artist} for name, artist in zip(TRAINED, artists, strict=True)])
    warnings = prior_part(fine_tuning(Part.PRIOR, tmp_path, bundle)).warnings
    assert [warning.partition(":")[0] for warning in warnings] == list(TRAINED)
    assert "does not know the artist 'Cid'" in warnings[0]


def test_samples_are_of_songs_that_the_prior_can_be_conditioned_on(bundle: Path, tmp_path: Path) -> None:
    """A held-out song that is longer than the model supports once ended the run when the first report was made."""
    write_songs(tmp_path / "songs", {"2.wav": 0.5, "s5.wav": 0.25})
    part = prior_part(fine_tuning(Part.PRIOR, tmp_path, bundle))
    (warning,) = part.warnings
    assert "2.wav (0.50 s long, but the model supports songs of 0.10 s to 0.40 s)" in warning
    part.show(weights_of(part), tmp_path / "report")
    assert (tmp_path / "report" / "song_0_song.flac").exists()
    assert not (tmp_path / "report" / "song_1_song.flac").exists()


def test_a_run_does_not_go_on_with_other_lists_of_names(bundle: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "songs")
    requests: list[TrainRequest] = []
    for names in (("ann", "bob"), ("bob", "ann")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        (folder / "v3_artist_ids.txt").write_text("".join(f"{n};{i}\n" for i, n in enumerate(("unknown", *names))))
        (folder / "v3_genre_ids.txt").write_text("unknown;0\n")
        requests.append(fine_tuning(Part.PRIOR, tmp_path, bundle, vocabulary=folder))
    first, other = requests
    train(first)
    with pytest.raises(TrainingError, match="the lists of artists and genres are not the same"):
        train(replace(other, resume=True))
    train(replace(first, resume=True))


def test_damaged_lists_beside_the_songs_are_not_passed_over(bundle: Path, tmp_path: Path) -> None:
    songs = write_songs(tmp_path / "songs")
    (songs / "v3_artist_ids.txt").write_text("unknown;0\nann;one\n")
    (songs / "v3_genre_ids.txt").write_text("unknown;0\n")
    request = replace(fine_tuning(Part.PRIOR, tmp_path, bundle), fine_tune=False, preset="tiny")
    with pytest.raises(LabelError, match=r"v3_artist_ids.txt, line 2: expected name;id, found 'ann;one'"):
        prior_part(request)


def test_a_run_that_cannot_begin_encodes_no_songs(bundle: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "songs")
    request = fine_tuning(Part.PRIOR, tmp_path, bundle)
    with pytest.raises(ConfigError, match="3 examples cannot be divided"):
        train(replace(request, settings=replace(request.settings, batch=3, accumulate=2)))
    request.out.mkdir()
    (request.out / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="has other things in it"):
        train(request)
    assert not request.out.with_name("run-codes").exists()


def test_the_assessed_prior_is_the_trained_one_without_a_copy_of_its_weights(bundle: Path, tmp_path: Path) -> None:
    write_songs(tmp_path / "songs")
    part = prior_part(fine_tuning(Part.PRIOR, tmp_path, bundle))
    trained = weights_of(part)
    model, copy = part._trained_model(trained), build_prior(part._prior)
    copy.load_state_dict(dict(trained.weights))
    tensors = model.state_dict()
    assert tensors.keys() == trained.weights.keys()
    assert all(tensors[name].data_ptr() == tensor.data_ptr() for name, tensor in trained.weights.items())
    scores = [score_with_model(prior, part._prior, part._held_out, lambda done, total: None) for prior in (model, copy)]
    assert scores[0].music.tokens > 0
    assert scores[0] == scores[1]
