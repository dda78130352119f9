"""Songs of small random models are aligned, and whatever cannot be aligned is told before anything is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.errors import ConfigError, EngineError, JukeboxError, SamplingError
from jukebox_deploy.jobs.align_job import AlignRequest, align_songs
from jukebox_deploy.jobs.alignment.attention import alignment_windows, lyric_alignment
from jukebox_deploy.jobs.alignment.files import ALIGNMENT_FILES
from jukebox_deploy.labels.rows import SongText, label_song
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore
from tests.export.small_models import separate_lyrics_config, unlabelled_config, write_checkpoint
from tests.runtime.song_cases import MODELS

TOTAL_SECONDS = 5.0
LYRICS = "Slow water over\nold stones, slow water"


def with_alignment(config: JukeboxConfig, layer: int | None) -> JukeboxConfig:
    """The configuration with a name for the alignment layer of its top prior."""
    *others, top = config.priors
    assert top.lyrics
    named = replace(top.lyrics, alignment_layer=layer, alignment_head=None if layer is None else 0)
    return replace(config, priors=(*others, replace(top, lyrics=named)))


CONFIGS = {
    "in the sequence": with_alignment(MODELS["lyrics_in_sequence"], 15),
    "encoded": with_alignment(separate_lyrics_config(), 3),
}


@dataclass(frozen=True)
class Case:
    """A model and its songs."""

    checkpoint: CheckpointBundle

    @property
    def config(self) -> JukeboxConfig:
        return self.checkpoint.config

    def write_song(self, folder: Path, codes: int, lyrics: str = LYRICS, *, missing: int = 0, **record: str) -> Path:
        """A song folder with random codes of the top level, some of which may be missing."""
        vqvae, top = self.config.vqvae, self.config.top_level
        per_level = [codes * vqvae.hop_length(top) // hop for hop in vqvae.hop_lengths]
        seconds = codes * vqvae.hop_length(top) / vqvae.sample_rate
        request = SongRequest(seconds=seconds, lyrics=lyrics, artist="#3", total_seconds=TOTAL_SECONDS)
        lengths = SongLengths((0,) * vqvae.levels, tuple(per_level))
        found = np.random.default_rng(2).integers(0, vqvae.codebook_size, codes - missing)
        fingerprint = Fingerprint("engine", record.get("checkpoint", self.checkpoint.fingerprint()))
        with SongStore(folder) as store:
            given = [np.zeros(0, np.int64)] * top
            store.begin(SongRecord(self.config.name, fingerprint, request, lengths), [*given, found])
        return folder

    def align(self, *songs: Path, **choices: object) -> None:
        align_songs(AlignRequest(self.checkpoint.folder, songs, **choices))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(write_checkpoint(CONFIGS[request.param], tmp_path_factory.mktemp("model") / "bundle"))


def attention_of(song: Path) -> np.ndarray:
    with np.load(song / "alignment.npz") as arrays:
        attention: np.ndarray = arrays["attention"]
    return attention


@pytest.mark.parametrize("codes", [100, 20], ids=["several windows", "less than a window"])
def test_all_windows_of_a_song_are_looked_at(case: Case, tmp_path: Path, codes: int) -> None:
    song = case.write_song(tmp_path / "song", codes)
    told: list[tuple[str, float, float]] = []
    align_songs(AlignRequest(case.checkpoint.folder, (song,)), lambda *count: told.append(count))
    config, vqvae = case.config.prior(case.config.top_level), case.config.vqvae
    hop = vqvae.hop_length(config.level)
    text = SongText("#3", "", LYRICS)
    total = round(TOTAL_SECONDS * vqvae.sample_rate)
    labels = label_song(config, case.checkpoint.vocabulary, text, total_length=total).labels
    windows = alignment_windows(config, vqvae.sample_rate, hop, labels, codes)
    found = np.load(song / f"codes_{config.level}.npy")
    expected = lyric_alignment(case.checkpoint.load_prior(config.level), config, found, windows, len(LYRICS))
    np.testing.assert_allclose(attention_of(song), expected, atol=1e-6)
    counts = [done for what, done, _ in told if what == f"{song}: windows"]
    assert counts == sorted(counts)
    assert counts[-1] == len(windows) == told[-1][2]
    assert len(counts) > 2 * len(windows)  # layers are told of, too


def test_the_files_hold_what_was_found(case: Case, tmp_path: Path) -> None:
    song = case.write_song(tmp_path / "song", 60)
    before = {path.name for path in song.iterdir()}
    (aligned,) = align_songs(AlignRequest(case.checkpoint.folder, (song,)))
    assert (aligned.alignment.codes, aligned.alignment.lyrics) == (60, LYRICS)
    assert {path.name for path in song.iterdir()} == before | set(ALIGNMENT_FILES)
    with np.load(song / "alignment.npz") as arrays:
        assert arrays["attention"].shape == (60, len(LYRICS))
        assert (int(arrays["hop_length"]), int(arrays["sample_rate"])) == (
            case.config.vqvae.hop_length(case.config.top_level),
            case.config.vqvae.sample_rate,
        )
        assert str(arrays["lyrics"]) == str(arrays["characters"]) == LYRICS
    document = json.loads((song / "words.json").read_text())
    assert [word["text"] for word in document["words"]] == LYRICS.split()
    assert [word["line"] for word in document["words"]] == [0, 0, 0, 1, 1, 1, 1]
    lyrics = case.config.prior(case.config.top_level).lyrics
    assert lyrics
    assert (document["layer"], document["head"]) == (lyrics.alignment_layer, lyrics.alignment_head)
    assert document["checkpoint"] == case.checkpoint.fingerprint()
    assert (song / "lyrics.vtt").read_text().startswith("WEBVTT\n")
    assert (song / "alignment.png").read_bytes().startswith(b"\x89PNG")


def test_files_go_elsewhere_and_replace_earlier_ones(case: Case, tmp_path: Path) -> None:
    song, out = case.write_song(tmp_path / "song", 30), tmp_path / "elsewhere"
    out.mkdir()
    (out / "words.json").write_text("old")
    case.align(song, out=out)
    assert {path.name for path in out.iterdir()} == set(ALIGNMENT_FILES)
    assert not (song / "words.json").exists()
    assert json.loads((out / "words.json").read_text())["song"] == str(song)


def test_half_precision_looks_at_nearly_the_same(case: Case, tmp_path: Path) -> None:
    song = case.write_song(tmp_path / "song", 60)
    case.align(song, threads=1)
    full = attention_of(song)
    case.align(song, threads=1, precision=Precision.BF16)
    half = attention_of(song)
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.1)


def refusal(case: Case, kind: type[JukeboxError], *songs: Path, **choices: object) -> str:
    """The sentence, and nothing written."""
    before = {song: sorted(song.iterdir()) for song in songs if song.is_dir()}
    with pytest.raises(kind) as error:
        case.align(*songs, **choices)
    assert all(sorted(song.iterdir()) == files for song, files in before.items())
    return str(error.value)


def test_songs_that_cannot_be_aligned(case: Case, tmp_path: Path) -> None:
    sound = case.write_song(tmp_path / "sound", 30)
    unfinished = case.write_song(tmp_path / "unfinished", 30, missing=7)
    top = case.config.top_level
    message = refusal(case, SamplingError, sound, unfinished)
    assert f"it has 23 of 30 codes of level {top}; repeat the command" in message
    for number, lyrics in enumerate(("", " \n", "\ud7ff")):
        song = case.write_song(tmp_path / f"silent_{number}", 30, lyrics)
        assert f"{song}: the song has no lyrics" in refusal(case, SamplingError, sound, song)
    other = case.write_song(tmp_path / "other", 30, checkpoint="0" * 64)
    assert "a song of another model" in refusal(case, SamplingError, other)
    assert "there is no such song folder" in refusal(case, SamplingError, tmp_path / "nowhere")
    assert "song.json" in refusal(case, SamplingError, tmp_path)
    assert "of one song, and 2 are given" in refusal(case, SamplingError, sound, sound, out=tmp_path / "out")


def test_models_that_cannot_align(tmp_path: Path) -> None:
    without = write_checkpoint(unlabelled_config(), tmp_path / "plain")
    unnamed = write_checkpoint(with_alignment(separate_lyrics_config(), None), tmp_path / "unnamed")
    for checkpoint in (without, unnamed):
        case = Case(checkpoint)
        song = case.write_song(tmp_path / checkpoint.folder.name / "song", 60)
        assert "has no alignment layer and head" in refusal(case, ConfigError, song)


def test_a_device_that_is_not_there(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    song = case.write_song(tmp_path / "song", 30)
    assert "sees no CUDA device" in refusal(case, EngineError, song, provider="cuda")
