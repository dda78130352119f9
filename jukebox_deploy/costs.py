"""Costs of a model, computed from its configuration alone: bytes, floating-point operations, tokens per second.

Pure arithmetic. Source: specification section 14; the tests compare these formulas with its tables.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config import JukeboxConfig, PriorConfig, TransformerConfig, VQVAEConfig
from jukebox_deploy.contract import INT4_GROUP, ITEM_BYTES, LinearWeights, Precision, Role
from jukebox_deploy.graphs import GraphOptions, declare_step
from jukebox_deploy.parameter_counts import (
    attention_layers,
    count_parameters,
    count_weights,
    lyric_attention_layers,
    lyric_head_layers,
    mlp_layers,
    norm_parameters,
    prior_parameters,
)

# Bytes


class WeightStorage(StrEnum):
    """Storage format of the weights of a prior (specification 14.2)."""

    HALF = "half"  # everything in 16 bits
    HALF_LINEAR = "half_linear"  # the weights of the transformers' linear layers in 16 bits, the rest in 32
    SINGLE = "single"  # everything in 32 bits


def weight_bytes(config: PriorConfig, storage: WeightStorage) -> int:
    """Return the bytes of all weights of a prior."""
    stacks = [config.transformer]
    if config.lyrics and config.lyrics.encoder:
        stacks.append(config.lyrics.encoder)
    layers = lyric_head_layers(config)
    for stack in stacks:
        layers += attention_layers(stack) + lyric_attention_layers(stack) + mlp_layers(stack)
    return _stored_bytes(prior_parameters(config).total, layers, storage)


def prefill_weight_bytes(config: PriorConfig, storage: WeightStorage) -> int:
    """Return the bytes of those weights of a prior that a prefill needs, and a step as well."""
    parts, stack = prior_parameters(config), config.transformer
    others = [parts.start_token, parts.labels, parts.conditioner, parts.lyric_core, parts.lyric_head, parts.output]
    of_prefill = parts.total - sum(others) - count_parameters(lyric_attention_layers(stack))
    return _stored_bytes(of_prefill, attention_layers(stack) + mlp_layers(stack), storage)


def _stored_bytes(parameters: int, layers: list[tuple[int, int]], storage: WeightStorage) -> int:
    """Return the bytes of so many parameters, of which the weights of linear `layers` may be stored in 16 bits."""
    match storage:
        case WeightStorage.SINGLE:
            return 4 * parameters
        case WeightStorage.HALF:
            return 2 * parameters
        case WeightStorage.HALF_LINEAR:
            return 4 * parameters - 2 * count_weights(layers)


def position_bytes(config: TransformerConfig, precision: Precision) -> int:
    """Return the bytes of the key and the value of one position in one layer."""
    return 2 * config.state_width * ITEM_BYTES[precision.dtype]


def sufficient_positions(config: TransformerConfig, pattern: AttentionPattern) -> int:
    """Return how many positions a layer must keep in its cache to sample a whole context (specification 7.1).

    Raises `ConfigError` for patterns that cannot be sampled.
    """
    if pattern is AttentionPattern.PRIME:
        return min(config.prime_span, config.context)
    return config.cache_length(pattern)


def sufficient_cache_bytes(config: TransformerConfig, precision: Precision) -> int:
    """Return the cache bytes per slot if each layer keeps only what its pattern needs (specification 14.3, ii)."""
    positions = sum(sufficient_positions(config, pattern) for pattern in config.patterns)
    return positions * position_bytes(config, precision)


def full_cache_bytes(config: TransformerConfig, precision: Precision) -> int:
    """Return the cache bytes per slot if every layer keeps the whole context (specification 14.3, i)."""
    cross = config.patterns.count(AttentionPattern.CROSS)
    positions = (config.depth - cross) * config.context + cross * config.encoder_tokens
    return positions * position_bytes(config, precision)


def allocated_cache_bytes(config: PriorConfig, precision: Precision) -> int:
    """Return the cache bytes per slot that the exported step allocates, lyric keys and values included."""
    spec = declare_step(config, GraphOptions(precision))
    lyrics = [t for t in spec.tensors if t.role is Role.INPUT and t.name.startswith("cross_")]
    return sum(tensor.bytes({"B": 1}) for tensor in [*spec.states, *lyrics] if tensor.in_place or tensor in lyrics)


def step_bytes(
    config: PriorConfig, slots: int, precision: Precision, weights: LinearWeights = LinearWeights.AS_PRECISION
) -> int:
    """Return the minimum memory traffic of a step of all slots, in bytes, averaged over a window.

    It consists of the stack's weights as stored and the output matrix in float32, each read once, and for every slot
    the keys and values that are read by the attention layers and written to the caches.
    """
    stack, item = config.transformer, ITEM_BYTES[precision.dtype]
    layers = attention_layers(stack) + mlp_layers(stack)
    matrices = sum(linear_weight_bytes(layer, precision, weights) for layer in layers)
    vectors = (count_parameters(layers) - count_weights(layers) + stack.depth * 2 * norm_parameters(stack.width)) * item
    output = config.bins * stack.width * ITEM_BYTES["float32"]
    written = stack.depth - stack.patterns.count(AttentionPattern.CROSS)
    moved = sum(mean_visible_keys(stack, pattern) for pattern in stack.patterns) + written
    return matrices + vectors + output + slots * round(moved * position_bytes(stack, precision))


def linear_weight_bytes(layer: tuple[int, int], precision: Precision, weights: LinearWeights) -> int:
    """Return the bytes of the weight matrix of a linear layer `(inputs, outputs)`, quantisation scales included."""
    inputs, outputs = layer
    item = ITEM_BYTES[precision.dtype]
    match weights:
        case LinearWeights.INT8 | LinearWeights.FP8:
            return (inputs + item) * outputs
        case LinearWeights.INT4 if inputs % INT4_GROUP == 0:
            return (inputs // 2 + inputs // INT4_GROUP * item) * outputs
    return inputs * outputs * item


# Floating-point operations; a multiply-add counts as two


def visible_keys(config: TransformerConfig, pattern: AttentionPattern, position: int) -> int:
    """Return the number of keys that the query at a position attends to (specification section 5)."""
    c, spread = config.block_length, config.spread
    block, offset = divmod(position, c)
    match pattern:
        case AttentionPattern.DENSE:
            return position + 1
        case AttentionPattern.BLOCK:
            return offset + 1
        case AttentionPattern.COLUMN:
            return block + 1
        case AttentionPattern.PREVIOUS_BLOCK:
            return c if block else 0
        case AttentionPattern.SUMMARY | AttentionPattern.SPREAD_SUMMARY:
            keys = spread if pattern is AttentionPattern.SPREAD_SUMMARY else 1
            own = max(0, offset + 1 - (c - keys)) if block < config.block_count - 1 else 0
            return keys + block * keys + own
        case AttentionPattern.CROSS:
            return config.encoder_tokens
        case AttentionPattern.PRIME:
            return min(position + 1, config.prime_span)


@cache
def mean_visible_keys(config: TransformerConfig, pattern: AttentionPattern) -> float:
    """Return the number of keys per query, averaged over the context."""
    return sum(visible_keys(config, pattern, i) for i in range(config.context)) / config.context


def weight_flops(config: PriorConfig) -> int:
    """Return the operations per token in the linear layers and the output matrix (specification 14.4)."""
    layers = attention_layers(config.transformer) + mlp_layers(config.transformer)
    return 2 * (count_weights(layers) + config.bins * config.transformer.width)


def mean_attention_flops(config: TransformerConfig) -> float:
    """Return the operations per token among queries, keys and values, averaged over the context."""
    return 4 * config.state_width * sum(mean_visible_keys(config, pattern) for pattern in config.patterns)


# Time


def tokens_per_second(config: VQVAEConfig, level: int) -> float:
    """Return the codes of one level per second of audio."""
    return config.sample_rate / config.hop_length(level)


def system_tokens_per_second(config: VQVAEConfig) -> float:
    """Return the codes of all levels per second of audio; 7235 for the released models."""
    return sum(tokens_per_second(config, level) for level in range(config.levels))


def window_seconds(config: JukeboxConfig, prior: PriorConfig) -> float:
    """Return the length of a prior's window in seconds."""
    return prior.window / tokens_per_second(config.vqvae, prior.level)


def audio_second_flops(config: JukeboxConfig, prior: PriorConfig) -> float:
    """Return the operations of a prior per second of audio if each token is generated once, without prefill."""
    per_token = weight_flops(prior) + mean_attention_flops(prior.transformer)
    return per_token * tokens_per_second(config.vqvae, prior.level)
