"""What a continued or upsampled song takes over from its source, and what it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jukebox_deploy.errors import SamplingError
from jukebox_deploy.jobs.requests.songs import build_jobs, read_jobs
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongLengths, SongRequest
from jukebox_deploy.runtime.store import Fingerprint, SongRecord, SongStore

SOURCE = SongRequest(
    seconds=6.0,
    artist="organ valley",
    genre="lullaby",
    lyrics="la la",
    total_seconds=60.0,
    offset_seconds=3.0,
    seed=9,
    levels=(LevelSettings(0.5),),
)
MODES = pytest.mark.parametrize("mode", [Mode.CONTINUE, Mode.UPSAMPLE])


def write(folder: Path, request: SongRequest) -> Path:
    with SongStore(folder) as store:
        store.begin(SongRecord("m", Fingerprint("e", "c"), request, SongLengths((0,), (8,))), [np.arange(8)])
    return folder


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., SongRequest]:
    """The request for a song that begins with another's codes."""
    source = write(tmp_path / "source", SOURCE)

    def ask(mode: Mode, **fields: Any) -> SongRequest:
        given = {"mode": mode, "source": str(source), "seconds": 20.0, **fields}
        return build_jobs(given, None, tmp_path / "song")[0].request

    return ask


@MODES
def test_labels_and_place_are_taken_over_and_nothing_else(mode: Mode, ask, tmp_path: Path) -> None:
    expected = replace(SOURCE, mode=mode, source=str(tmp_path / "source"), seconds=20.0, seed=0, levels=())
    assert ask(mode, artist=None, lyrics=None) == expected


@MODES
def test_what_is_given_wins_also_if_it_is_empty(mode: Mode, ask) -> None:
    request = ask(mode, artist="", lyrics="oh", offset_seconds=0.0)
    assert (request.artist, request.genre, request.lyrics) == ("", "lullaby", "oh")
    assert (request.offset_seconds, request.total_seconds) == (0.0, 60.0)


def test_a_song_that_goes_on_beyond_its_end_ends_with_what_is_sampled(ask) -> None:
    assert ask(Mode.CONTINUE, seconds=57.0).total_seconds == 60.0
    assert ask(Mode.CONTINUE, seconds=57.1).total_seconds is None
    assert ask(Mode.CONTINUE, seconds=57.1, offset_seconds=0.0).total_seconds == 60.0
    assert ask(Mode.CONTINUE, seconds=57.1, total_seconds=58.0).total_seconds == 58.0  # refused later, as it was given


def test_a_source_as_long_as_its_song_leaves_the_length_open(tmp_path: Path) -> None:
    source = write(tmp_path / "source", replace(SOURCE, total_seconds=None))
    (job,) = build_jobs({"mode": Mode.UPSAMPLE, "source": str(source)}, None, tmp_path / "song")
    assert job.request.total_seconds is None


def test_lines_take_over_what_neither_they_nor_options_give(tmp_path: Path) -> None:
    source = write(tmp_path / "source", SOURCE)
    lines = [
        {"mode": "continue", "source": str(source), "genre": "folk", "total_seconds": None},
        {"seconds": 1, "artist": "x"},
    ]
    path = tmp_path / "songs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = (job.request for job in read_jobs(path, {"seconds": 8.0, "lyrics": "oh"}, tmp_path / "out"))
    assert (first.artist, first.genre, first.lyrics) == ("organ valley", "folk", "oh")
    assert (first.total_seconds, first.offset_seconds) == (None, 3.0)
    assert (second.artist, second.genre, second.lyrics, second.offset_seconds) == ("x", "", "oh", 0.0)


def test_a_song_that_was_begun_needs_its_source_no_more(ask, tmp_path: Path) -> None:
    request = ask(Mode.CONTINUE, artist="me", seconds=80.0)
    write(tmp_path / "song", request)
    shutil.rmtree(tmp_path / "source")
    assert ask(Mode.CONTINUE, artist="me", seconds=80.0) == request


def test_other_modes_take_nothing_over(tmp_path: Path) -> None:
    given = {"mode": Mode.PRIMED, "source": "a.wav", "seconds": 2.0}
    assert build_jobs(given, None, tmp_path)[0].request == SongRequest(Mode.PRIMED, 2.0, source="a.wav")


def test_a_source_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "songs.jsonl"
    path.write_text('{"mode": "upsample", "source": "nowhere"}')
    with pytest.raises(SamplingError, match="line 1: nowhere: there is no such song folder"):
        read_jobs(path, {}, tmp_path)
