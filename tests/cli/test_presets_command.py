from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from jukebox_deploy.cli.main import cli
from jukebox_deploy.presets import PRESETS


def run(*arguments):
    return CliRunner().invoke(cli, ["presets", *arguments])


def test_the_table_lists_every_preset():
    result = run()
    assert result.exit_code == 0
    for name, config in PRESETS.items():
        assert name in result.stdout
        assert result.stdout.count("VQ-VAE") == len(PRESETS)
        assert f"upsampler {config.priors[0].level}" in result.stdout


def test_the_table_gives_the_sizes():
    rows = [line.split() for line in run("5b_lyrics").stdout.splitlines()]
    top, upsampler = ("22.6 GB 11.3 GB 1.97 GB 983 MB 23.78 s", "3.93 GB 1.96 GB 773 MB 386 MB 1.49 s")
    assert ["top", "prior", "5,640,506,800", *top.split()] in rows
    assert ["upsampler", "0", "981,298,176", *upsampler.split()] in rows


def test_no_line_is_wider_than_the_table_says():
    assert max(len(line) for line in run().stdout.splitlines()) <= 120


def test_json_has_every_figure():
    data = json.loads(run("--json").stdout)
    assert list(data) == list(PRESETS)
    top = data["1b_lyrics"]["priors"][-1]
    assert data["1b_lyrics"]["parameters"] == 2_907_118_531
    assert top["parameters"]["total"] == 942_643_200
    assert top["weight_bytes"] == {"half": 1_885_286_400, "half_linear": 1_958_633_472, "single": 3_770_572_800}
    assert top["cache_bytes_per_slot"]["fp16"]["sufficient"] == 337_821_696
    assert top["window_seconds"] == pytest.approx(17.833, abs=1e-3)


def test_only_those_named():
    assert list(json.loads(run("tiny", "small", "--json").stdout)) == ["tiny", "small"]


def test_an_unknown_name_gets_a_suggestion():
    result = run("tinny")
    assert result.exit_code == 1
    assert "Did you mean tiny?" in result.stderr
    assert result.stdout == ""
