"""Songs of the corpus's composer pass for what they are; swapped labels, noise and silence do not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.data.synthesis.performance import perform
from jukebox_deploy.errors import DataError, EngineError, SamplingError
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.jobs.samples.pictures import nearest_clip, write_sample_picture
from jukebox_deploy.jobs.samples.quality import JudgeRequest, SampleQuality, judge_samples
from tests.data.short_songs import RATE
from tests.data.song_folders import noise, write_sound, write_table
from tests.jobs.sampled_songs import ARTISTS, GENRES, refrain, write_corpus, write_song

LENGTH = 4 * RATE
PLACES = range(100, 108)  # songs that are not in the corpus


@pytest.fixture(scope="module")
def sounds() -> list[np.ndarray]:
    return [perform(refrain(number), RATE)[:LENGTH] for number in PLACES]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def write_samples(folder, sounds, wrong: bool = False):
    """Level 0: the songs; level 1: noise. With `wrong` they ask for what they are not."""
    for number, sound in zip(PLACES, sounds, strict=True):
        artist, genre = ARTISTS[number % 2 ^ wrong], GENRES[number // 2 % 2 ^ wrong]
        write_song(folder / f"song_{number}", {0: sound, 1: noise(4, number, RATE)}, artist, genre)
    return folder


@pytest.fixture(scope="module")
def judged(corpus, sounds, tmp_path_factory) -> tuple[SampleQuality, ...]:
    folder = write_samples(tmp_path_factory.mktemp("songs"), sounds)
    return judge_samples(JudgeRequest(folder, corpus, clips=36))


def test_artists_and_genres_of_songs_are_heard(judged):
    songs = judged[0]
    assert [entry.kind for entry in songs.recognitions] == ["artist", "genre"]
    for entry in songs.recognitions:
        assert entry.samples == 8
        assert entry.accuracy >= 7 / 8
        assert entry.accuracy == np.trace(entry.confusion) / 8
        assert entry.interval.low < entry.accuracy <= entry.interval.high <= 1
        assert entry.chance == 0.5
        assert entry.p_value < 0.05
        assert entry.corpus_accuracy > 0.8


def test_songs_keep_to_their_scale(judged):
    scale = judged[0].scale
    assert scale is not None
    assert scale.asked.mean > 0.8
    assert scale.asked.mean == pytest.approx(scale.corpus, abs=0.1)
    assert scale.margin.error is not None
    assert scale.margin.mean - scale.margin.error > 0.1


def test_noise_is_nobodys_song(judged):
    quality = judged[1]
    for entry in quality.recognitions:
        assert entry.accuracy <= 6 / 8
        assert entry.p_value > 0.05
    assert quality.scale is not None
    assert quality.scale.asked.mean == pytest.approx(quality.scale.noise, abs=0.03)
    assert abs(quality.scale.margin.mean) < 0.1


def test_swapped_labels_are_noticed(corpus, sounds, tmp_path):
    (quality,) = judge_samples(JudgeRequest(write_samples(tmp_path, sounds, wrong=True), corpus, (0,), clips=36))
    assert [entry.accuracy for entry in quality.recognitions] == pytest.approx([0, 0], abs=1 / 8)
    assert quality.scale is not None
    assert quality.scale.asked.mean < quality.scale.corpus - 0.1


def test_the_exact_interval_and_the_chance_of_guessing(judged):
    """Clopper and Pearson for eight hits of eight: 1 - 0.025^(1/8); one order of 8! / (4! 4!) has so many."""
    entry = next((e for e in judged[0].recognitions if e.accuracy == 1), None)
    assert entry is not None
    assert entry.interval.low == pytest.approx(0.025 ** (1 / 8))
    assert entry.interval.high == 1
    assert entry.p_value == pytest.approx(1 / 70)


def test_identical_songs_of_one_request_prove_nothing(corpus, sounds, tmp_path):
    """All are what was asked for, and would be if the model knew no other song."""
    for number in range(7):
        write_song(tmp_path / f"song_{number}", {0: sounds[0]}, ARTISTS[0], GENRES[0])
    (quality,) = judge_samples(JudgeRequest(tmp_path, corpus, clips=36))
    for entry in quality.recognitions:
        assert entry.accuracy == entry.chance == 1
        assert entry.p_value is None
    assert quality.notes[0].startswith("6 of 7 samples sound exactly like an earlier one")
    asked = [
        f"all 7 samples ask for the {kind} {name!r}" for kind, name in (("artist", ARTISTS[0]), ("genre", GENRES[0]))
    ]
    assert [note.partition(",")[0] for note in quality.notes[1:]] == asked
    json.dumps(quality.to_json(), allow_nan=False)


def test_one_song_for_every_request_is_chance(corpus, sounds, tmp_path):
    """Five of six requests are met, by a model that does not listen to them."""
    for number in range(6):
        write_song(tmp_path / f"song_{number}", {0: sounds[0]}, ARTISTS[number == 5])
    (entry,) = judge_samples(JudgeRequest(tmp_path, corpus, clips=36))[0].recognitions
    assert entry.accuracy == entry.chance == pytest.approx(5 / 6)
    assert entry.p_value == 1


def test_songs_that_differ_have_no_notes(judged):
    assert [quality.notes for quality in judged] == [(), ()]


def test_silence_can_be_judged(corpus, tmp_path):
    write_song(tmp_path, {0: np.zeros(LENGTH, np.float32)}, ARTISTS[0], GENRES[0])
    (quality,) = judge_samples(JudgeRequest(tmp_path, corpus, clips=36))
    assert quality.scale is not None
    assert quality.scale.asked.mean == pytest.approx(7 / 12)
    json.dumps(quality.to_json(), allow_nan=False)


def test_labels_that_the_corpus_lacks_are_left_out(corpus, sounds, tmp_path):
    write_song(tmp_path / "a", {0: sounds[0]}, ARTISTS[0], "polka")
    write_song(tmp_path / "b", {0: sounds[1]}, "somebody", "polka")
    (quality,) = judge_samples(JudgeRequest(tmp_path, corpus, clips=36))
    assert [(entry.kind, entry.samples) for entry in quality.recognitions] == [("artist", 1)]
    assert quality.scale is None


def test_samples_without_any_known_label_are_refused(corpus, sounds, tmp_path):
    write_song(tmp_path, {0: sounds[0]}, "somebody", "polka")
    with pytest.raises(SamplingError, match=r"nothing to judge: the samples ask for polka and somebody, and"):
        judge_samples(JudgeRequest(tmp_path, corpus, clips=36))


def test_a_corpus_of_one_artist_teaches_nothing(sounds, tmp_path):
    for number in range(2):
        write_sound(tmp_path / "corpus" / f"{number}.wav", sounds[number], RATE)
    write_table(tmp_path / "corpus", [{"file": f"{number}.wav", "artist": "ann"} for number in range(2)])
    write_song(tmp_path / "song", {0: sounds[0]}, "ann")
    with pytest.raises(DataError, match="the corpus has 1 artists in 2 songs"):
        judge_samples(JudgeRequest(tmp_path / "song", tmp_path / "corpus"))


def test_listeners_hear_of_every_clip(corpus, sounds, tmp_path):
    write_song(tmp_path, {0: sounds[0], 1: sounds[0]}, ARTISTS[0])
    heard: list[tuple[str, int, int]] = []
    judge_samples(JudgeRequest(tmp_path, corpus, clips=24), lambda *event: heard.append(event))
    assert [what for what, done, total in heard if done == total] == [
        "clips of samples, level 0",
        "clips of the corpus",  # once: both levels have one format
        "clips of samples, level 1",
    ]


def codec(checkpoint: CheckpointBundle, rate: int):
    vqvae = replace(checkpoint.config.vqvae, sample_rate=rate)
    engine = eager_engine(checkpoint, declare_graphs(replace(checkpoint.config, priors=())), threads=1)
    engine.config = replace(checkpoint.config, vqvae=vqvae)
    return engine


def test_the_corpus_can_go_through_the_codec_of_the_samples(tiny_checkpoint, corpus, sounds, tmp_path):
    """Random weights leave nothing of the artists, which the songs' own accuracy shows."""
    write_song(tmp_path, {2: sounds[0]}, ARTISTS[0])
    clear, blurred = (
        judge_samples(JudgeRequest(tmp_path, corpus, clips=12, codec=engine))[0].recognitions[0].corpus_accuracy
        for engine in (None, codec(tiny_checkpoint, RATE))
    )
    assert clear != blurred


def test_a_codec_of_another_rate_is_refused(tiny_checkpoint, corpus, sounds, tmp_path):
    write_song(tmp_path, {0: sounds[0]}, ARTISTS[0])
    with pytest.raises(EngineError, match="the codec works at 44100 Hz and has 3 levels; the songs are at 16000 Hz"):
        judge_samples(JudgeRequest(tmp_path, corpus, codec=codec(tiny_checkpoint, 44_100)))


def test_the_report_is_plain_data(judged):
    data = [json.loads(json.dumps(quality.to_json(), allow_nan=False)) for quality in judged]
    assert [entry["level"] for entry in data] == [0, 1]
    assert data[0]["samples"] == 8
    assert data[0]["corpus_songs"] == 12
    assert data[0]["seconds"] == 4.0
    assert data[0]["recognitions"][1]["names"] == sorted(GENRES)
    assert data[0]["scale"]["samples"] == 8


def test_pictures_show_samples_beside_what_is_like_them(judged, tmp_path):
    quality = judged[0]
    for sample in quality.sampled:
        clip = nearest_clip(sample, quality.corpus)
        assert (clip.artist, clip.genre) == (sample.artist, sample.genre)
    write_sample_picture(tmp_path / "picture.png", quality)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    write_sample_picture(tmp_path / "few.png", replace(quality, sampled=quality.sampled[:1], recognitions=()))
    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "picture.png").stat().st_size
