"""What a level does to sound, against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.jobs.evaluation.reconstruction import LevelMeasurement, reconstructed
from jukebox_deploy.jobs.opening.eager import eager_engine
from jukebox_deploy.models.losses import spectral_convergence
from tests.data.song_folders import noise
from tests.jobs.small_evaluation import upsampler_config, write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(upsampler_config(), tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="module")
def engine(checkpoint):
    return eager_engine(checkpoint, declare_graphs(checkpoint.config))


@pytest.mark.parametrize("level", [0, 1])
def test_measurements_are_those_of_the_model_itself(checkpoint, engine, level):
    pieces = [noise(0.1, seed)[:800] for seed in range(3)] + [noise(0.2)]
    pieces = [np.tile(piece, 2) for piece in pieces]  # long enough for a spectrogram
    measurement = LevelMeasurement(engine, level)
    model, signal, error, convergences, codes = checkpoint.load_vqvae(), 0.0, 0.0, [], []
    for piece in pieces:
        measurement.add(piece)
        target = torch.from_numpy(piece)[None, None]
        with torch.no_grad():
            codes.append(model.encode(target, level))
            output = model.decode(codes[-1], level)
        signal += float(target.square().sum())
        error += float((target - output).square().sum())
        convergences.append(float(spectral_convergence(target, output)))
    quality = measurement.quality()
    assert quality.snr == pytest.approx(10 * np.log10(signal / error), abs=1e-3)
    assert quality.spectral_convergence == pytest.approx(np.mean(convergences), rel=1e-4)
    assert quality.use.used == len(torch.cat(codes, dim=1).unique())
    assert quality.use.codes == sum(code.shape[1] for code in codes)


def test_a_reconstruction_is_whole_codes_long(engine, checkpoint):
    audio = noise(0.2)[:1001]
    found = reconstructed(engine, 1, audio)
    assert found.shape == (1000,)
    model = checkpoint.load_vqvae()
    with torch.no_grad():
        expected = model.decode(model.encode(torch.from_numpy(audio[:1000])[None, None], 1), 1)[0, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
