"""Every tensor of every preset has one name per publisher, and the counts are the published ones."""

from __future__ import annotations

import math

import pytest

from jukebox_deploy.checkpoints.components import component_configs
from jukebox_deploy.checkpoints.layout import component_shapes, file_layout
from jukebox_deploy.checkpoints.names import HUGGING_FACE, OPENAI, file_names
from jukebox_deploy.presets import PRESETS, SMALL_VQVAE, preset

COMPONENTS = {
    f"{name}-{component}": part
    for name, config in PRESETS.items()
    for component, part in component_configs(config).items()
}


@pytest.mark.parametrize("dialect", [OPENAI, HUGGING_FACE], ids=lambda d: d.name)
@pytest.mark.parametrize("config", COMPONENTS.values(), ids=COMPONENTS.keys())
def test_names_can_be_turned_round(config, dialect):
    layout = file_layout(dialect, config)
    theirs = [name for names in layout.names.values() for name in names]
    assert set(layout.names) == set(component_shapes(config))
    assert len(set(theirs)) == len(theirs) == len(layout.shapes)


# Entries and parameters: specification 15.3 and 14.1; the VQ-VAEs with their codebooks.
@pytest.mark.parametrize(
    ("name", "component", "entries", "numbers"),
    [
        ("5b", "prior_2", 872, 5_060_452_800),
        ("5b_lyrics", "prior_2", 1194, 5_640_506_800),
        ("1b_lyrics", "prior_2", 872, 942_643_200),
        ("5b", "prior_1", 1006, 981_298_176),
        ("5b", "prior_0", 1006, 981_298_176),
        ("5b", "vqvae", None, 1_485_763 + 393_216),
        ("small", "vqvae", None, 586_050 + 131_072),
        ("small", "prior_0", None, 218_015_232),
        ("small", "prior_1", None, 160_814_080),
        ("small_labelled", "prior_1", None, 161_122_304),
        ("small_single_lyrics", "prior_1", None, 159_499_264),
        ("small_separate_lyrics", "prior_1", None, 167_584_704),
    ],
)
def test_released_counts(name, component, entries, numbers):
    config = component_configs(preset(name))[component]
    assert sum(map(math.prod, component_shapes(config).values())) == numbers
    if entries is not None:
        assert len(file_layout(OPENAI, config).shapes) == entries


@pytest.mark.parametrize(
    ("ours", "openai", "hugging_face"),
    [
        (
            "encoders.1.blocks.0.stages.4.residual.blocks.2.outer.bias",
            "encoders.1.level_blocks.0.model.4.1.model.2.model.3.bias",
            "encoders.1.level_blocks.0.downsample_block.9.resnet_block.2.conv1d_2.bias",
        ),
        (
            "encoders.1.blocks.1.output.weight",
            "encoders.1.level_blocks.1.model.3.weight",
            "encoders.1.level_blocks.1.proj_out.weight",
        ),
        (
            "decoders.1.blocks.1.stages.2.convolution.weight",
            "decoders.1.level_blocks.1.model.3.1.weight",
            "decoders.1.level_blocks.1.upsample_block.5.weight",
        ),
        ("codebooks.0.codes", "bottleneck.level_blocks.0.k", "bottleneck.level_blocks.0.codebook"),
    ],
)
def test_names_of_the_small_vqvae(ours, openai, hugging_face):
    assert file_names(OPENAI, SMALL_VQVAE, [ours]) == {ours: (openai,)}
    assert file_names(HUGGING_FACE, SMALL_VQVAE, [ours]) == {ours: (hugging_face,)}


@pytest.mark.parametrize(
    ("ours", "openai", "hugging_face"),
    [
        (
            "core.transformer.layers.7.attention.query_key_value.weight",
            "prior.transformer._attn_mods.7.attn.c_attn.w",
            "prior.transformer._attn_mods.7.attn.c_attn.weight",
        ),
        (
            "core.transformer.layers.18.attention.encoder_key_value.bias",
            "prior.transformer._attn_mods.18.attn.c_enc_kv.b",
            "prior.transformer._attn_mods.18.attn.c_enc_kv.bias",
        ),
        (
            "lyric_encoder.core.transformer.layers.0.mlp_norm.bias",
            "prime_prior.transformer._attn_mods.0.ln_1.bias",
            "encoder.transformer._attn_mods.0.layer_norm_1.bias",
        ),
        ("lyric_encoder.projection.weight", "prime_state_proj.w", "encoder.proj_in.weight"),
        ("labels.genre.weight", "y_emb.bow_genre_emb.emb.weight", "metadata_embedding.bow_genre_emb.weight"),
        ("labels.total.weight", "y_emb.total_length_emb.emb.weight", "metadata_embedding.total_length_emb.emb.weight"),
    ],
)
def test_names_of_a_prior(ours, openai, hugging_face):
    config = preset("5b_lyrics").prior(2)
    assert file_layout(OPENAI, config).names[ours] == (openai,)
    assert file_layout(HUGGING_FACE, config).names[ours] == (hugging_face,)


def test_a_conditioner_and_a_tied_embedding():
    names = file_layout(OPENAI, preset("5b").prior(1)).names
    assert names["conditioner.upsampler.stages.1.residual.blocks.15.inner.weight"] == (
        "conditioner_blocks.0.cond.model.2.0.blocks.15.model.1.weight",
    )
    assert names["core.token_embedding.weight"] == ("prior.x_emb.weight", "prior.x_out.weight")


def test_a_tensor_without_a_rule_is_a_mistake():
    with pytest.raises(KeyError, match="something"):
        file_names(OPENAI, SMALL_VQVAE, ["something.weight"])
