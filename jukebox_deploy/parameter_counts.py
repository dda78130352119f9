"""Number of parameters of each part of a model, computed from its configuration alone (specification 14.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config import JukeboxConfig, PriorConfig, TransformerConfig, VQVAEConfig

Layer = tuple[int, int]
"""Inputs and outputs of a linear layer; the inputs of a convolution are its kernel size times its input channels."""


def count_parameters(layers: Iterable[Layer]) -> int:
    """Count the weights and biases of linear layers."""
    return sum((inputs + 1) * outputs for inputs, outputs in layers)


def count_weights(layers: Iterable[Layer]) -> int:
    """Count the weights of linear layers without their biases."""
    return sum(inputs * outputs for inputs, outputs in layers)


def norm_parameters(width: int) -> int:
    """Count the weights and biases of a layer norm."""
    return 2 * width


# Layers of the parts


def attention_layers(config: TransformerConfig) -> list[Layer]:
    """Return the linear layers in the attention of a stack that are applied to every token."""
    width, state = config.width, config.state_width
    projections = dict.fromkeys(AttentionPattern, 3 * state) | {AttentionPattern.CROSS: state}
    return [layer for pattern in config.patterns for layer in ((width, projections[pattern]), (state, width))]


def lyric_attention_layers(config: TransformerConfig) -> list[Layer]:
    """Return the linear layers in the attention of a stack that are applied to the lyric states, once per window."""
    return [(config.width, 2 * config.state_width)] * config.patterns.count(AttentionPattern.CROSS)


def mlp_layers(config: TransformerConfig) -> list[Layer]:
    """Return the linear layers of all MLPs of a stack."""
    return [(config.width, config.mlp_width), (config.mlp_width, config.width)] * config.depth


def _residual_layers(width: int, depth: int, ratio: float) -> list[Layer]:
    inner = int(ratio * width)
    return [(3 * width, inner), (inner, width)] * depth


@dataclass(frozen=True)
class _Block:
    """One block of an encoder, a decoder or a conditioner."""

    outer: int  # channels outside the block, on the side of the codes
    width: int  # channels inside
    stages: int
    stride: int
    residual: list[Layer]  # of one stage

    def encoder_layers(self, inputs: int) -> list[Layer]:
        """Return a strided convolution and a residual stack per stage, then a convolution."""
        channels = [inputs, *[self.width] * (self.stages - 1)]
        strided = [(2 * self.stride * n, self.width) for n in channels]
        return [*strided, *self.residual * self.stages, (3 * self.width, self.outer)]

    def decoder_layers(self) -> list[Layer]:
        """Return a convolution, then a residual stack and a transposed convolution per stage."""
        channels = [*[self.width] * (self.stages - 1), self.outer]
        transposed = [(2 * self.stride * self.width, n) for n in channels]
        return [(3 * self.outer, self.width), *self.residual * self.stages, *transposed]


def _vqvae_block(config: VQVAEConfig, level: int, block: int) -> _Block:
    width = config.level_width(level)
    residual = _residual_layers(width, config.level_depth(level), config.convolution_ratio)
    return _Block(config.embedding_width, width, config.downs[block], config.strides[block], residual)


# Parameters


@dataclass(frozen=True)
class VQVAEParameters:
    """Number of parameters of a VQ-VAE, including the codebooks, which are not trained by gradients."""

    encoders: tuple[int, ...]  # per level
    decoders: tuple[int, ...]
    codebooks: int

    @property
    def total(self) -> int:
        """Encoders, decoders and codebooks."""
        return sum(self.encoders) + sum(self.decoders) + self.codebooks


def vqvae_parameters(config: VQVAEConfig) -> VQVAEParameters:
    """Count the parameters of a VQ-VAE."""
    outer = config.embedding_width
    encoders, decoders = [], []
    for level in range(config.levels):
        blocks = [_vqvae_block(config, level, block) for block in range(level + 1)]
        inputs = [1, *[outer] * level]
        encoders.append(sum(count_parameters(b.encoder_layers(n)) for b, n in zip(blocks, inputs, strict=True)))
        decoders.append(sum(count_parameters(b.decoder_layers()) for b in blocks) + count_parameters([(3 * outer, 1)]))
    return VQVAEParameters(tuple(encoders), tuple(decoders), config.levels * config.codebook_size * outer)


@dataclass(frozen=True)
class PriorParameters:
    """Number of parameters of each component of a prior; a tied output matrix counts once."""

    attention: int
    mlp: int
    norms: int
    token_embedding: int
    output: int
    position_embedding: int
    start_token: int
    labels: int
    conditioner: int
    lyric_core: int
    lyric_head: int  # projection, norm and output matrix of a separate lyric encoder

    @property
    def total(self) -> int:
        """The sum over all components."""
        return sum(getattr(self, field.name) for field in fields(self))


def prior_parameters(config: PriorConfig) -> PriorParameters:
    """Count the parameters of a prior."""
    stack, width = config.transformer, config.transformer.width
    return PriorParameters(
        attention=count_parameters(attention_layers(stack) + lyric_attention_layers(stack)),
        mlp=count_parameters(mlp_layers(stack)),
        norms=stack.depth * 2 * norm_parameters(width),
        token_embedding=config.bins * width,
        output=0 if config.tied_output else config.bins * width,
        position_embedding=stack.context * width,
        start_token=0 if config.labels else width,
        labels=_label_parameters(config),
        conditioner=_conditioner_parameters(config),
        lyric_core=_lyric_core_parameters(config),
        lyric_head=_lyric_head_parameters(config),
    )


def _label_parameters(config: PriorConfig) -> int:
    if config.labels is None:
        return 0
    timing_rows = 3 * config.timing.bins if config.timing else 0
    return (config.labels.artists + config.labels.genres + timing_rows) * config.transformer.width


def _conditioner_parameters(config: PriorConfig) -> int:
    if config.conditioner is None:
        return 0
    conditioner, width = config.conditioner, config.transformer.width
    residual = _residual_layers(conditioner.width, conditioner.depth, conditioner.convolution_ratio)
    block = _Block(width, conditioner.width, conditioner.stages, conditioner.stride, residual)
    return config.codebook_size * width + count_parameters(block.decoder_layers()) + norm_parameters(width)


def _lyric_core_parameters(config: PriorConfig) -> int:
    if config.lyrics is None or config.lyrics.encoder is None:
        return 0
    encoder = config.lyrics.encoder
    rows = config.lyrics.vocabulary + encoder.context + 1  # tokens, positions and the start token
    layers = attention_layers(encoder) + mlp_layers(encoder)
    return count_parameters(layers) + encoder.depth * 2 * norm_parameters(encoder.width) + rows * encoder.width


def lyric_head_layers(config: PriorConfig) -> list[Layer]:
    """Return the projection of a separate lyric encoder's states; empty if there is no such encoder."""
    if config.lyrics is None or config.lyrics.encoder is None:
        return []
    return [(config.lyrics.encoder.width, config.transformer.width)]


def _lyric_head_parameters(config: PriorConfig) -> int:
    if config.lyrics is None or config.lyrics.encoder is None:
        return 0
    width = config.transformer.width
    return count_parameters(lyric_head_layers(config)) + norm_parameters(width) + config.lyrics.vocabulary * width


def system_parameters(config: JukeboxConfig) -> int:
    """Count the parameters of a whole model, codebooks included."""
    return vqvae_parameters(config.vqvae).total + sum(prior_parameters(prior).total for prior in config.priors)
