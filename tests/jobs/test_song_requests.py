"""Options and lines of JSON become requests, or a sentence that says where they are wrong."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.jobs.requests.lines import parse_line
from jukebox_deploy.jobs.requests.songs import (
    LevelValue,
    build_jobs,
    level_settings,
    read_jobs,
    read_lyrics,
)
from jukebox_deploy.runtime.sampler import SongJob
from jukebox_deploy.runtime.song import LevelSettings, Mode, SongRequest
from tests.source_tree import REPOSITORY


@pytest.fixture
def write(tmp_path: Path):
    def write(*lines: Any) -> Path:
        path = tmp_path / "songs.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    return write


def test_a_value_for_one_level_wins_over_that_for_all() -> None:
    found = level_settings(
        3, {"temperature": [LevelValue(2, 0.5), LevelValue(None, 0.9)], "top_k": [LevelValue(0, 7)], "top_p": []}
    )
    assert found == (LevelSettings(0.9, top_k=7), LevelSettings(0.9), LevelSettings(0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": [LevelValue(3, 0.5)]}, "there is no level 3; the model has 0 to 2"),
        ({"top_p": [LevelValue(None, 0.0)]}, "top-p 0.0 is invalid"),
        ({"temperature": [LevelValue(1, -0.1)]}, "temperature -0.1 is invalid"),
        ({"top_p": [LevelValue(None, 0.5)], "top_k": [LevelValue(1, 3)]}, "exclude each other"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, list[LevelValue]], message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        level_settings(3, values)


def test_songs_of_one_seed_are_numbered(tmp_path: Path) -> None:
    jobs = build_jobs({"seconds": 2.0, "seed": 4, "artist": None}, 3, tmp_path)
    assert [(job.request.seed, job.request.song) for job in jobs] == [(4, 0), (4, 1), (4, 2)]
    assert [job.folder for job in jobs] == [tmp_path / name for name in ("song_0", "song_1", "song_2")]
    with pytest.raises(SamplingError, match="ask for at least 1"):
        build_jobs({"seconds": 2.0}, 0, tmp_path)


def test_one_song_has_the_folder_for_itself(tmp_path: Path) -> None:
    assert build_jobs({"seconds": 2.0}, None, tmp_path) == [SongJob(SongRequest(seconds=2.0), tmp_path)]


def read_requests(path: Path, defaults: dict[str, Any]) -> list[SongRequest]:
    return [job.request for job in read_jobs(path, defaults, path.parent / "songs")]


def test_lines_fill_in_what_the_options_leave_open(write) -> None:
    path = write({"artist": "a", "seconds": 5}, "", {"lyrics": "x y", "seed": 9}, {"genre": "b"})
    first, second, third = read_requests(path, {"seconds": 3.0, "seed": 4, "levels": (LevelSettings(0.5),)})
    levels = (LevelSettings(0.5),)
    assert first == SongRequest(artist="a", seconds=5.0, seed=4, song=0, levels=levels)
    assert second == SongRequest(lyrics="x y", seconds=3.0, seed=9, song=0, levels=levels)
    assert third == SongRequest(genre="b", seconds=3.0, seed=4, song=3, levels=levels)


def test_a_line_may_hold_everything_that_song_json_holds(write) -> None:
    request = SongRequest(Mode.PRIMED, 4.0, "a", "b", "c", 9.0, 1.0, 3, 2, "p.wav", 1.0, (LevelSettings(1.0, top_k=4),))
    assert read_requests(write(config_to_dict(request)), {"seconds": 1.0, "seed": 8}) == [request]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: expected an object"),
        ({"sekunds": 3}, r"line 2: song: unknown keys sekunds"),
        ({"seconds": "3"}, "line 2: song.seconds: expected float, found '3'"),
        ({"seconds": 0}, "line 2: --seconds 0.0 is invalid"),
        ('{"seconds": NaN}', "line 2: --seconds nan is invalid"),
        ('{"artist": "\\udfff"}', "line 2: --artist .* is not text in UTF-8"),
        ("[" * 100_000, "line 2: brackets within brackets"),
        ('{"levels": ' + "[" * 100_000, "line 2: brackets within brackets"),
        ('{"seconds": ' + "9" * 5000 + "}", "line 2: a number of 5000 digits cannot be"),
        ('{"seed": -' + "9" * 50 + "}", "line 2: a number of 51 digits cannot be"),
        ('{"seed": 1, "artist": "a", "seed": 2}', "line 2: the key 'seed' is there more than once"),
        ('{"levels": [{"top_k": 1, "top_k": 2}]}', "line 2: the key 'top_k' is there more than once"),
        ('"' + "x" * 1000 + '"', "line 2: expected an object .* found .{61}$"),
        ({"mode": "primed"}, "line 2: mode primed starts from a sound file"),
    ],
)
def test_a_bad_line_is_named(write, line: Any, message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        read_requests(write({"seconds": 1}, line), {"seconds": 3.0})


def test_files_that_cannot_be_read(write, tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="there are no songs in this file"):
        read_requests(write("", ""), {})
    with pytest.raises(SamplingError, match="the songs cannot be read"):
        read_requests(tmp_path / "nowhere.jsonl", {})
    with pytest.raises(SamplingError, match="the lyrics cannot be read"):
        read_lyrics(tmp_path / "nowhere.txt")
    (tmp_path / "latin.txt").write_bytes("Blåbær".encode("latin-1"))
    with pytest.raises(SamplingError, match="UTF-8"):
        read_lyrics(tmp_path / "latin.txt")


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = tmp_path / "songs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"artist": "a"}\r\n{"artist": "b"}\r\n')
    assert [request.artist for request in read_requests(path, {"seconds": 1.0})] == ["a", "b"]


DOCUMENT = (REPOSITORY / "docs" / "sampling.md").read_text(encoding="utf-8")


def test_the_lines_in_the_documents_are_songs() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    songs = [config_from_dict(SongRequest, parse_line(line)) for line in block.splitlines()]
    assert [song.mode for song in songs] == [Mode.ANCESTRAL, Mode.ANCESTRAL, Mode.PRIMED, Mode.CONTINUE]


def test_the_documents_have_every_key() -> None:
    told = re.findall(r"^\| `(\w+)` \|.*\|.*\|$", DOCUMENT.partition("| key |")[2], re.MULTILINE)
    assert sorted(told) == sorted(field.name for field in fields(SongRequest))
