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


def test_no_steps_are_refused_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rates.json"
    words = ["--data", "songs", "--bundle", "bundle", "--codes", "codes", "--steps", "0", "--out", str(out)]
    with pytest.raises(SystemExit):
        data_loading.main(words)
    assert "--steps: expected 1 or more, found 0" in capsys.readouterr().err
    assert not out.exists()
