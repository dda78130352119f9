"""`sample` on engines whose model says how it is best sampled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jukebox_deploy.cli.main import cli
from jukebox_deploy.engines.bundle import EngineBundle, write_manifest
from jukebox_deploy.jobs.sampling_advice import SamplingAdvice
from jukebox_deploy.runtime.song import LevelSettings, SongRequest
from jukebox_deploy.runtime.store import read_record

LEVELS = (LevelSettings(0.8), LevelSettings(0.8, top_p=0.9), LevelSettings(0.7, top_k=40))
ADVICE = SamplingAdvice(LEVELS, total_seconds=20.0)
SHORT = ("--seconds", 0.3, "--lowest-level", 2)


def with_advice(bundle: EngineBundle, folder: Path, advice: SamplingAdvice) -> Path:
    """The bundle again in another folder, with advice in its manifest."""
    folder.mkdir()
    for name in bundle.manifest.files:
        (folder / name).hardlink_to(bundle.folder / name)
    write_manifest(folder, replace(bundle.manifest, sampling=advice.to_json()))
    return folder


@pytest.fixture(scope="module")
def engines(tiny_engine_bundle: EngineBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_advice(tiny_engine_bundle, tmp_path_factory.mktemp("advised") / "engines", ADVICE)


def run(engines: Path, out: Path, *options: object) -> Result:
    return CliRunner().invoke(cli, ["sample", str(engines), "--out", str(out), *map(str, (*SHORT, *options))])


def sample(engines: Path, out: Path, *options: object) -> tuple[SongRequest, str]:
    """The request that the song was made by, and what was told."""
    result = run(engines, out, *options)
    assert result.exit_code == 0, result.output
    told = [line for line in result.stdout.splitlines() if line.startswith("Defaults of the model: ")]
    return read_record(out).request, "".join(told).partition(": ")[2]


def test_what_no_option_gives_the_model_does(engines: Path, tmp_path: Path) -> None:
    request, told = sample(engines, tmp_path / "song")
    assert (request.levels, request.total_seconds) == (LEVELS, 20.0)
    assert told == (
        "--total-seconds 20.0 --temperature 0=0.8 --temperature 1=0.8 --top-p 1=0.9 --temperature 2=0.7 --top-k 2=40"
    )
    again, nothing = sample(engines, tmp_path / "again", *told.split())
    assert (again, nothing) == (request, "")


def test_options_go_before(engines: Path, tmp_path: Path) -> None:
    options = ("--temperature", 0.9, "--temperature", "0=1", "--top-p", "2=0.5", "--total-seconds", 10)
    request, told = sample(engines, tmp_path / "song", *options)
    assert request.levels == (LevelSettings(1.0), LevelSettings(0.9, top_p=0.9), LevelSettings(0.9, top_p=0.5))
    assert request.total_seconds == 10.0
    assert told == "--top-p 1=0.9"


def test_a_song_beyond_the_usual_length_ends_with_what_is_sampled(engines: Path, tmp_path: Path) -> None:
    request, told = sample(engines, tmp_path / "song", "--offset", 19.8)
    assert request.total_seconds is None
    assert "--total-seconds" not in told


def test_a_continued_song_keeps_its_length(engines: Path, tmp_path: Path) -> None:
    sample(engines, tmp_path / "first", "--total-seconds", 9)
    request, told = sample(engines, tmp_path / "second", "--continue", tmp_path / "first", "--seconds", 0.4)
    assert (request.levels, request.total_seconds) == (LEVELS, 9.0)
    assert "--total-seconds" not in told


def test_lines_go_before_options_and_these_before_the_model(engines: Path, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {},
        {"levels": [{"top_k": 5}, {}, {"top_k": None, "temperature": 0.5}], "total_seconds": None},
        {"levels": [{"temperature": 0.6}], "total_seconds": 15.0},
    ]
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps({**line, "seed": 1}) + "\n" for line in lines))
    result = run(engines, tmp_path, "--requests", requests, "--temperature", "1=0.3")
    assert result.exit_code == 0, result.output
    middle = LevelSettings(0.3, top_p=0.9)
    found = [read_record(tmp_path / f"song_{number}").request for number in range(3)]
    assert [(request.levels, request.total_seconds) for request in found] == [
        ((LEVELS[0], middle, LEVELS[2]), 20.0),
        ((LevelSettings(0.8, top_k=5), middle, LevelSettings(0.5)), None),
        ((LevelSettings(0.6), middle, LEVELS[2]), 15.0),
    ]


def test_the_request_in_song_json_is_a_line_for_the_same_song(engines: Path, tmp_path: Path) -> None:
    request, _ = sample(engines, tmp_path / "song", "--top-k", "2=7", "--total-seconds", 1.5)
    line = json.loads((tmp_path / "song" / "song.json").read_text())["request"]
    (tmp_path / "line.jsonl").write_text(json.dumps(line))
    assert run(engines, tmp_path / "again", "--requests", tmp_path / "line.jsonl").exit_code == 0
    assert read_record(tmp_path / "again" / "song_0").request == request


def test_json_names_the_options(engines: Path, tiny_engine_bundle: EngineBundle, tmp_path: Path) -> None:
    result = run(engines, tmp_path / "song", "--json", "--top-k", 9)
    assert json.loads(result.stdout)["options_of_model"] == [
        *("--total-seconds", "20.0", "--temperature", "0=0.8", "--temperature", "1=0.8", "--temperature", "2=0.7")
    ]
    assert "Defaults of the model: --total-seconds 20.0" in result.stderr
    without = run(tiny_engine_bundle.folder, tmp_path / "other", "--json")
    assert json.loads(without.stdout)["options_of_model"] == []
    assert "Defaults of the model" not in without.stderr


def test_a_song_goes_on_with_the_settings_it_began_with(
    engines: Path, tiny_engine_bundle: EngineBundle, tmp_path: Path
) -> None:
    """Other advice asks for another song, though the engine is the same."""
    request, told = sample(engines, tmp_path / "song")
    assert sample(engines, tmp_path / "song", "--resume")[0] == request
    result = run(tiny_engine_bundle.folder, tmp_path / "song", "--resume")
    assert result.exit_code != 0
    assert "total_seconds was 20.0, is now not given" in result.stderr
    assert "engine was" not in result.stderr
    assert sample(tiny_engine_bundle.folder, tmp_path / "song", "--resume", *told.split())[0] == request
