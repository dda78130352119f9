"""Construction of modules from configurations; no other module depends on both.

Every builder works on any device, including under `with torch.device("meta")`.
"""

from __future__ import annotations

import math

import torch

from jukebox_deploy.config import (
    ConditionerConfig,
    JukeboxConfig,
    LabelConfig,
    LyricsConfig,
    PriorConfig,
    TransformerConfig,
    VQVAEConfig,
)
from jukebox_deploy.contract import Precision
from jukebox_deploy.models.attention import AttentionGeometry
from jukebox_deploy.models.bottleneck import Codebook
from jukebox_deploy.models.conditioners import LabelConditioner, UpsamplerConditioner
from jukebox_deploy.models.convolution import DecoderBlock, EncoderBlock
from jukebox_deploy.models.prior import AutoregressiveCore, LyricEncoder, Prior, PriorParts
from jukebox_deploy.models.transformer import StackOptions, Transformer
from jukebox_deploy.models.vqvae import VQVAE, Decoder, Encoder
from jukebox_deploy.receptive_field import residual_dilations


def build_vqvae(config: VQVAEConfig) -> VQVAE:
    """Build a VQ-VAE with random weights and with zeros as codebooks."""
    levels = range(config.levels)
    return VQVAE(
        [_build_encoder(config, level) for level in levels],
        [_build_decoder(config, level) for level in levels],
        [Codebook(config.codebook_size, config.embedding_width) for _ in levels],
    )


def build_conditioner(
    config: ConditionerConfig, codebook_size: int, width: int, init_scale: float = 1.0
) -> UpsamplerConditioner:
    """Build the conditioner of an upsampler with transformer width `width`."""
    upsampler = DecoderBlock(
        input_width=width,
        width=config.width,
        output_width=width,
        stages=config.stages,
        stride=config.stride,
        inner_width=int(config.convolution_ratio * config.width),
        dilations=residual_dilations(config.depth, config.dilation_growth, config.dilation_cycle),
        scale=1 / math.sqrt(config.depth) if config.scale_residual else 1.0,
    )
    return UpsamplerConditioner(codebook_size, width, upsampler, init_scale)


def build_label_conditioner(config: LabelConfig, width: int, init_scale: float = 1.0) -> LabelConditioner:
    """Build the label embeddings of a prior with transformer width `width`."""
    bins = config.timing.bins if config.timing else None
    return LabelConditioner(config.artists, config.genres, width, bins, init_scale)


def build_prior(config: PriorConfig, precision: Precision = Precision.FP32) -> Prior:
    """Build a prior with random weights; its stack computes in `precision`, everything else in float32.

    Source: specification 4.4 and 10.
    """
    width = config.transformer.width
    init_scale = config.transformer.init_scale
    core = AutoregressiveCore(
        config.bins,
        build_transformer(config.transformer, precision),
        width,
        start_token=config.labels is None,
        output="tied" if config.tied_output else "own",
        init_scale=init_scale,
    )
    labels = build_label_conditioner(config.labels, width, init_scale) if config.labels else None
    conditioner = None
    if config.conditioner:
        conditioner = build_conditioner(config.conditioner, config.codebook_size, width, init_scale)
    parts = PriorParts(core, labels, conditioner, _build_lyric_encoder(config.lyrics, width))
    return Prior(parts, lyric_prefix=config.lyric_prefix, readds_conditioning=config.readds_conditioning)


def build_transformer(config: TransformerConfig, precision: Precision = Precision.FP32) -> Transformer:
    """Build a stack with random weights that computes in `precision`."""
    geometry = AttentionGeometry(config.block_length, config.block_count, config.prime_span, config.spread)
    return Transformer(
        StackOptions(
            width=config.width,
            state_width=config.state_width,
            mlp_width=config.mlp_width,
            heads=config.heads,
            patterns=config.patterns,
            geometry=geometry,
            init_scale=config.init_scale,
            zero_output=config.zero_output,
            scale_residual=config.scale_residual,
            dtype=getattr(torch, precision.dtype),
        )
    )


def build_model(config: JukeboxConfig, level: int | None, precision: Precision = Precision.FP32) -> VQVAE | Prior:
    """Build the VQ-VAE (`level` None) or the prior of a level."""
    return build_vqvae(config.vqvae) if level is None else build_prior(config.prior(level), precision)


def _build_lyric_encoder(config: LyricsConfig | None, width: int) -> LyricEncoder | None:
    """Build the separate lyric encoder; it is always in float32, because it runs only once per window."""
    if config is None or config.encoder is None:
        return None
    encoder = config.encoder
    core = AutoregressiveCore(
        config.vocabulary,
        build_transformer(encoder),
        encoder.width,
        start_token=True,
        output="none",
        init_scale=encoder.init_scale,
    )
    return LyricEncoder(core, encoder.width, width, config.vocabulary)


def _build_encoder(config: VQVAEConfig, level: int) -> Encoder:
    width = config.level_width(level)
    return Encoder(
        [
            EncoderBlock(
                input_width=config.embedding_width if block else 1,
                width=width,
                output_width=config.embedding_width,
                stages=config.downs[block],
                stride=config.strides[block],
                inner_width=int(config.convolution_ratio * width),
                dilations=_dilations(config, level, reverse=False),
            )
            for block in range(level + 1)
        ]
    )


def _build_decoder(config: VQVAEConfig, level: int) -> Decoder:
    width = config.level_width(level)
    blocks = [
        DecoderBlock(
            input_width=config.embedding_width,
            width=width,
            output_width=config.embedding_width,
            stages=config.downs[block],
            stride=config.strides[block],
            inner_width=int(config.convolution_ratio * width),
            dilations=_dilations(config, level, reverse=config.reverse_decoder_dilation),
        )
        for block in range(level + 1)
    ]
    return Decoder(blocks, config.embedding_width)


def _dilations(config: VQVAEConfig, level: int, *, reverse: bool) -> tuple[int, ...]:
    return residual_dilations(config.level_depth(level), config.dilation_growth, config.dilation_cycle, reverse)
