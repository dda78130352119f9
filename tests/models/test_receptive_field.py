"""How far the VQ-VAE sees: by arithmetic, and measured."""

import pytest
import torch

from jukebox_deploy.config import VQVAEConfig
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.presets import RELEASED_VQVAE
from jukebox_deploy.receptive_field import (
    ReceptiveField,
    decoder_receptive_field,
    encoder_receptive_field,
    residual_dilations,
)

SMALL = VQVAEConfig(
    downs=(2, 1), strides=(2, 4), multipliers=(2, 1), width=4, depth=1, embedding_width=4, codebook_size=8
)


def test_the_released_model_sees_as_far_as_specified():
    decoders = [decoder_receptive_field(RELEASED_VQVAE, level) for level in range(3)]
    encoders = [encoder_receptive_field(RELEASED_VQVAE, level) for level in range(3)]
    assert decoders == [ReceptiveField(5742, 5742), ReceptiveField(80, 80), ReceptiveField(82, 82)]
    assert encoders == [ReceptiveField(45935, 45942), ReceptiveField(2551, 2582), ReceptiveField(10455, 10582)]


def test_dilations_grow_cycle_and_reverse():
    assert residual_dilations(4, 3) == (1, 3, 9, 27)
    assert residual_dilations(5, 3, cycle=3) == (1, 3, 9, 1, 3)
    assert residual_dilations(4, 3, reverse=True) == (27, 9, 3, 1)


def positive(model):
    """Weights and inputs above zero: no contribution can cancel, no relu can hide one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.1, 0.2)
    return model.double()


def extent(gradient, origin):
    """First and last position with a gradient, relative to `origin`."""
    touched = gradient.abs().sum(dim=(0, 1)).nonzero().flatten()
    return ReceptiveField(int(origin - touched[0]), int(touched[-1] - origin))


@pytest.mark.parametrize("level", [0, 1])
def test_decoder_field_is_exactly_what_gradients_show(level):
    decoder = positive(build_vqvae(SMALL)).decoders[level]
    latents = torch.ones(1, 4, 101, dtype=torch.double, requires_grad=True)
    hop = SMALL.hop_length(level)
    decoder.forward(latents)[..., 50 * hop : 51 * hop].sum().backward()
    assert extent(latents.grad, 50) == decoder_receptive_field(SMALL, level)


@pytest.mark.parametrize("level", [0, 1])
def test_encoder_field_is_exactly_what_gradients_show(level):
    encoder = positive(build_vqvae(SMALL)).encoders[level]
    audio = torch.ones(1, 1, 1600, dtype=torch.double, requires_grad=True)
    hop = SMALL.hop_length(level)
    code = 800 // hop
    encoder.forward(audio)[..., code].sum().backward()
    assert extent(audio.grad, code * hop) == encoder_receptive_field(SMALL, level)


@torch.no_grad()
def test_a_chunk_with_that_much_context_decodes_exactly():
    model = build_vqvae(SMALL)
    for codes_table in model.buffers():
        codes_table.normal_()
    codes = torch.randint(8, (1, 90))
    field, hop = decoder_receptive_field(SMALL, 1), SMALL.hop_length(1)
    whole = model.decode(codes, 1)[..., 40 * hop : 50 * hop]
    part = model.decode(codes[:, 40 - field.before : 50 + field.after], 1)
    part = part[..., field.before * hop : (field.before + 10) * hop]
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-6)


def test_an_unknown_level_is_refused():
    with pytest.raises(ConfigError, match="there is no level 2"):
        decoder_receptive_field(SMALL, 2)
