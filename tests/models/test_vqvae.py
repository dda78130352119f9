"""The VQ-VAE against the original, against transformers, and as an ONNX graph."""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from jukebox_deploy.errors import AudioError
from jukebox_deploy.models.bottleneck import draw_candidates
from jukebox_deploy.models.builders import build_vqvae
from jukebox_deploy.models.losses import Bandwidths, LossSettings, vqvae_loss
from jukebox_deploy.presets import RELEASED_VQVAE, SMALL_VQVAE
from tests.models.codebook_steps import codebook_step
from tests.models.oracle_names import audio, load_golden, our_state_dict, relative_error, vqvae_config

GOLDENS = ("vqvae_3level.npz", "vqvae_small_2level.npz")


def load(name):
    golden = load_golden(name)
    model = build_vqvae(vqvae_config(golden)).eval()
    model.load_state_dict(our_state_dict(golden))
    return golden, model


@pytest.fixture(scope="module", params=GOLDENS)
def original(request):
    return load(request.param)


def levels(model):
    return range(len(model.codebooks))


def count(modules):
    return [sum(p.numel() for p in module.parameters()) for module in modules]


@pytest.mark.parametrize(
    ("config", "encoders", "decoders", "codebooks"),
    [
        (RELEASED_VQVAE, [441_856, 116_384, 168_224], [458_177, 124_641, 176_481], 393_216),
        (SMALL_VQVAE, None, None, 131_072),
    ],
)
def test_parameter_counts_of_the_released_models(config, encoders, decoders, codebooks):
    with torch.device("meta"):
        model = build_vqvae(config)
    assert sum(count([model])) == (1_485_763 if encoders else 586_050)
    assert sum(buffer.numel() for buffer in model.buffers()) == codebooks
    if encoders:
        assert count(model.encoders) == encoders
        assert count(model.decoders) == decoders


@torch.no_grad()
def test_latents_match_the_original(original):
    golden, model = original
    for level in levels(model):
        if (key := f"out/enc_l{level}") in golden:
            assert relative_error(model.encode_latents(audio(golden, "in/x"), level), golden[key]) < 1e-5


@torch.no_grad()
def test_codes_match_the_original(original):
    golden, model = original
    for level in levels(model):
        np.testing.assert_array_equal(model.encode(audio(golden, "in/x"), level), golden[f"out/z_l{level}"])


@torch.no_grad()
def test_audio_of_any_length_is_encoded_as_the_original_does(original):
    golden, model = original
    samples = 4029 if len(levels(model)) == 3 else 2941
    for level in levels(model):
        codes = model.encode(audio(golden, "in/x")[..., :samples], level)
        np.testing.assert_array_equal(codes, golden[f"out/z_odd_l{level}"])


@torch.no_grad()
def test_decoded_audio_matches_the_original(original):
    golden, model = original
    compared = 0
    for level in levels(model):
        for codes_key, audio_key in (
            (f"out/z_l{level}", f"out/dec_l{level}"),
            (f"in/zr_l{level}", f"out/dec_r_l{level}"),
        ):
            if audio_key in golden:
                decoded = model.decode(torch.from_numpy(golden[codes_key]), level)
                assert relative_error(decoded.transpose(1, 2), golden[audio_key]) < 1e-5
                compared += 1
    assert compared >= len(levels(model))


@torch.no_grad()
def test_forward_reconstructs_with_every_level(original):
    golden, model = original
    sound = audio(golden, "in/x")
    reconstruction = model(sound)
    for level in levels(model):
        decoded = model.decode(model.encode(sound, level), level)
        torch.testing.assert_close(reconstruction.audio[level], decoded, rtol=1e-4, atol=1e-5)


def test_audio_that_does_not_fill_its_codes_is_refused_in_training(original):
    golden, model = original
    with pytest.raises(AudioError, match="multiple of the hop length"):
        model(audio(golden, "in/x")[..., :-1])
    with pytest.raises(AudioError, match="multiple of the hop length"):
        codebook_step(model, audio(golden, "in/x")[..., :-1], dict.fromkeys(levels(model)), draw_candidates)


def test_gradients_reach_the_encoder_but_not_the_codebook(original):
    golden, model = original
    reconstruction = model(audio(golden, "in/x"))
    reconstruction.audio[0].square().mean().backward()
    assert model.encoders[0].blocks[0].output.weight.grad.abs().max() > 0
    assert not model.codebooks[0].codes.requires_grad
    model.zero_grad()


@torch.no_grad()
def test_a_level_is_trained_as_if_it_were_alone():
    golden, model = load("vqvae_small_2level.npz")
    sound = audio(golden, "in/x")

    def first(rows, count):
        return rows[:count]

    both = codebook_step(model, sound, dict.fromkeys((0, 1)), first)
    upper = codebook_step(model, sound, {1: None}, first)
    assert upper.reconstruction.levels == (1,)
    assert torch.equal(upper.reconstruction.audio[0], both.reconstruction.audio[1])
    assert torch.equal(upper.codebooks[1].codes, both.codebooks[1].codes)
    settings, bandwidths = LossSettings(waveform=(1.0, 0.25)), Bandwidths(0.3, 0.1, 10.0)
    losses = [vqvae_loss(sound, step.reconstruction, settings, bandwidths) for step in (both, upper)]
    assert losses[1].reconstruction == losses[0].reconstruction[1:]
    expected = 0.25 * losses[0].reconstruction[1] + losses[0].multispectral[1]
    torch.testing.assert_close(losses[1].total, expected + 0.02 * both.reconstruction.commit_losses[1])


def test_runs_on_tensors_without_data():
    """Nothing depends on values, so shapes can be traced through."""
    with FakeTensorMode():
        model = build_vqvae(RELEASED_VQVAE)
        codes = model.encode(torch.zeros(2, 1, 4096), 2)
        assert codes.shape == (2, 32)
        assert model.decode(codes, 2).shape == (2, 1, 4096)


def test_agrees_with_transformers(original):
    from tests.models.transformers_pairs import their_vqvae  # skips where `transformers` lacks Jukebox

    golden, model = original
    config = vqvae_config(golden)
    theirs, sound = their_vqvae(config, model), torch.from_numpy(golden["in/x"])
    with torch.no_grad():
        their_codes = theirs.encode(sound)
        for level in range(config.levels):
            codes = model.encode(sound.transpose(1, 2), level)
            assert torch.equal(codes, their_codes[level])
            their_audio = theirs.decode(their_codes[level:], start_level=level)
            assert relative_error(model.decode(codes, level).transpose(1, 2), their_audio.numpy()) < 1e-6


class LevelEncoder(nn.Module):
    def __init__(self, model, level):
        super().__init__()
        self.encoder, self.codebook = model.encoders[level], model.codebooks[level]

    def forward(self, audio):
        return self.codebook.encode(self.encoder(audio))


class LevelDecoder(nn.Module):
    def __init__(self, model, level):
        super().__init__()
        self.decoder, self.codebook = model.decoders[level], model.codebooks[level]

    def forward(self, codes):
        return self.decoder(self.codebook.dequantise(codes))


def onnx_session(module, example, dynamic, path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.onnx.export(module, (example,), path, dynamo=True, opset_version=24, dynamic_shapes=(dynamic,), verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda array: session.run(None, {session.get_inputs()[0].name: array})[0]


@torch.no_grad()
def test_exported_encoder_and_decoder_run_at_other_lengths(tmp_path):
    level = 1
    golden, model = load("vqvae_3level.npz")
    hop = vqvae_config(golden).hop_length(level)
    sound = audio(golden, "in/x")
    batch, time = torch.export.Dim("B", min=1, max=16), torch.export.Dim("T", min=1, max=100_000)
    encode = onnx_session(
        LevelEncoder(model, level).eval(), sound[..., : 4 * hop], {0: batch, 2: hop * time}, tmp_path / "encode.onnx"
    )
    decode = onnx_session(
        LevelDecoder(model, level).eval(),
        torch.zeros(2, 5, dtype=torch.long),
        {0: batch, 1: time},
        tmp_path / "decode.onnx",
    )
    for items, codes in ((2, 128), (1, 7), (1, 1)):
        part = sound[:items, :, : codes * hop].contiguous()
        ours = model.encode(part, level)
        found = encode(part.numpy())
        np.testing.assert_array_equal(found, ours)
        expected = model.decode(ours, level)
        assert relative_error(torch.from_numpy(decode(found)), expected.numpy()) < 1e-5
    np.testing.assert_array_equal(encode(sound.numpy()), golden["out/z_l1"])


@torch.no_grad()
def test_exported_encoder_takes_the_first_of_equal_codes(tmp_path):
    _, model = load("vqvae_3level.npz")
    codebook = model.codebooks[2]
    codebook.codes[40:] = codebook.codes[3]
    codebook.codes[3:40] += 100.0
    codebook.codes[3] = codebook.codes[40]

    class Encode(nn.Module):
        def forward(self, latents):
            return codebook.encode(latents)

    latents = codebook.codes[3].reshape(1, -1, 1).repeat(1, 1, 6)
    codes = onnx_session(Encode().eval(), latents, {2: torch.export.Dim("T", min=1)}, tmp_path / "ties.onnx")(
        latents.numpy()
    )
    np.testing.assert_array_equal(codes, np.full((1, 6), 3))
    assert torch.equal(codebook.encode(latents), torch.from_numpy(codes))
