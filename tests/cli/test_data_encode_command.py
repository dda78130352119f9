"""Codes that are made ahead are those that training and evaluation find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from jukebox_deploy.checkpoints.components import VQVAE_COMPONENT
from jukebox_deploy.cli.main import cli
from jukebox_deploy.data.catalogue import read_catalogue
from jukebox_deploy.data.code_cache import CodeCache
from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
from jukebox_deploy.jobs.song_codes import weights_digest
from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck
from tests.jobs.small_evaluation import CONFIGS, write_checkpoint, write_songs

CONFIG = replace(CONFIGS["upsampler"], priors=())
"""A VQ-VAE, as it is when no prior has been trained."""


def run(*arguments):
    return CliRunner().invoke(cli, ["data", "encode", *map(str, arguments)])


def coded(songs, checkpoint, codes):
    """The codes of all levels of all songs."""
    vqvae = checkpoint.config.vqvae
    digest = weights_digest(checkpoint.tensors(VQVAE_COMPONENT))
    found = CodeCache(codes, digest, vqvae.hop_lengths, vqvae.sample_rate).coded_songs(read_catalogue(songs))
    assert not found.skipped
    return [song.codes(level) for song in found.songs for level in range(vqvae.levels)]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    return write_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(CONFIG, tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="module")
def engines(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("engines") / "onnx"
    export_bundle(checkpoint, out, ExportRequest(tensorrt=TensorRtCheck.NEVER))
    return out


def test_engines_give_the_codes_of_pytorch(songs, checkpoint, engines, tmp_path):
    for codes, how in ((tmp_path / "pytorch", ()), (tmp_path / "engines", ("--engines", engines, "--threads", 1))):
        result = run(songs, "--bundle", checkpoint.folder, "--codes", codes, *how)
        assert result.exit_code == 0, result.output
        assert f"{codes}: 4 songs encoded, 0 left out." in result.output
    by_pytorch, by_engines = (
        np.concatenate(coded(songs, checkpoint, tmp_path / how)) for how in ("pytorch", "engines")
    )
    # A latent between two codes may go to the other one.
    assert np.mean(by_engines == by_pytorch) > 0.99


def test_what_is_there_is_not_encoded_again(songs, checkpoint, tmp_path):
    first = run(songs, "--bundle", checkpoint.folder, "--codes", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = run(songs, "--bundle", checkpoint.folder, "--codes", tmp_path)
    assert first.exit_code == again.exit_code == 0
    assert len(times) == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


def test_engines_of_another_checkpoint_are_refused(songs, engines, tmp_path):
    other = write_checkpoint(CONFIG, tmp_path / "other", seed=1)
    result = run(songs, "--bundle", other.folder, "--engines", engines, "--codes", tmp_path / "codes")
    assert result.exit_code != 0
    assert "was not made from" in result.output
    assert not (tmp_path / "codes").exists()
