"""The page of samples: what is asked for, and what is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from jukebox_deploy.checkpoints.random_bundle import write_random_bundle
from jukebox_deploy.config import TimingConfig
from jukebox_deploy.data.synthesis.artists import ARTISTS
from jukebox_deploy.data.synthesis.genres import GENRES
from jukebox_deploy.jobs.sample_job import OpenedModel
from jukebox_deploy.jobs.samples import page as samples_page
from jukebox_deploy.jobs.samples.page import PageRequest, songs_to_ask_for, voice_begins, write_samples_page
from jukebox_deploy.jobs.samples.text import is_samples_page
from jukebox_deploy.labels.vocabulary import Vocabulary
from tests.data.short_songs import short_song
from tests.runtime.fake_engine import FakeEngine
from tests.runtime.song_cases import FINGERPRINT, LYRICS_IN_SEQUENCE, MODEL, TIMED
from tests.test_packaging import broken_links

RATE, SECONDS = 8000, 0.25
TOP = replace(LYRICS_IN_SEQUENCE, labels=replace(TIMED, timing=TimingConfig(8, 0.01, 200.0)))
CONFIG = replace(MODEL, vqvae=replace(MODEL.vqvae, sample_rate=RATE), priors=(*MODEL.priors[:2], TOP))


def test_every_artist_and_every_genre_is_asked_for_twice() -> None:
    songs = songs_to_ask_for(5)
    assert Counter(song.artist for song in songs) == dict.fromkeys(ARTISTS, 2)
    assert Counter(song.genre for song in songs) == dict.fromkeys(GENRES, 2)
    assert all(song.lyrics and 0 < voice_begins(song) < song.seconds / 2 for song in songs)


@pytest.fixture
def few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_page, "songs_to_ask_for", lambda seed, *manner: songs_to_ask_for(seed)[:2])
    monkeypatch.setattr(samples_page, "compose", lambda seed, number, *manner: short_song(number))


@pytest.mark.usefixtures("few_and_short")
def test_the_folder_is_a_page_with_its_files_and_the_same_each_time(tmp_path: Path) -> None:
    checkpoint = write_random_bundle(CONFIG, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("a card")
    model = OpenedModel(FakeEngine(CONFIG), FINGERPRINT, Vocabulary())
    for name in ("one", "two"):
        write_samples_page(PageRequest(tmp_path / name, checkpoint, seconds=SECONDS), tmp_path / name, model)
    page = tmp_path / "one" / "README.md"
    text = page.read_text()
    assert is_samples_page(page.parent)
    assert broken_links(page) == []
    assert checkpoint.fingerprint()[:12] in text
    assert "[`lyrics_in_sequence`](../model/README.md)" in text
    sounds = sorted(path.name for path in page.parent.glob("*.ogg"))
    assert len(sounds) == 2 + 4
    assert all(f"({name})" in text for name in sounds)
    audio, rate = soundfile.read(page.parent / sounds[0])
    assert (len(audio), rate) == (SECONDS * RATE, RATE)
    files = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()} == files


def test_any_other_folder_is_no_page(tmp_path: Path) -> None:
    assert not is_samples_page(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    assert not is_samples_page(tmp_path)
