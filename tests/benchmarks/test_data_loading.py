"""The measurement of data loading measures every part of a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jukebox_deploy.benchmarks import data_loading
from tests.jobs.small_evaluation import CONFIGS, write_checkpoint, write_songs


@pytest.mark.parametrize(("name", "parts"), [("upsampler", {"vqvae", "prior_0"}), ("joint", {"vqvae", "prior_0"})])
def test_every_part_has_its_rates(name: str, parts: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_loading, "_BATCHES", 6)
    songs = write_songs(tmp_path / "songs")
    checkpoint = write_checkpoint(CONFIGS[name], tmp_path / "checkpoint")
    out = tmp_path / "rates.json"
    words = ["--data", songs, "--bundle", checkpoint.folder, "--codes", tmp_path / "codes", "--batch", 2]
    data_loading.main([*map(str, words), "--seconds", "0.2", "--steps", "2", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["results"].keys() == parts
    for rates in record["results"].values():
        assert rates["made_over_taken"] == pytest.approx(rates["made_per_second"] / rates["taken_per_second"])
        assert rates["made_per_second"] > 0
        assert 0 <= rates["waited_share"] <= 1
        assert rates["batch"] == 2
    assert record["results"]["vqvae"]["unit"] == "samples"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--steps", "0", "--steps: expected a whole number, 1 or more, found 0"),
        ("--batch", "-1", "--batch: expected a whole number, 1 or more, found -1"),
        ("--seconds", "0", "--seconds: expected a number above 0, found 0"),
        ("--seconds", "nan", "--seconds: expected a number above 0, found nan"),
        ("--seconds", "long", "--seconds: expected a number above 0, found long"),
    ],
)
def test_numbers_that_measure_nothing_are_refused_before_anything_is_done(
    option: str, value: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rates.json"
    words = ["--data", "songs", "--bundle", "bundle", "--codes", "codes", option, value, "--out", str(out)]
    with pytest.raises(SystemExit, match="2"):
        data_loading.main(words)
    assert told in capsys.readouterr().err
    assert not out.exists()
