"""The table of graphs: every tensor that crosses a graph's border is spelled here and nowhere else.

Symbols: `B` slots, `T` codes of a stretch of audio. The step and the prefill share their buffers:
same names, same memory. The column caches are `[B, H, c*m, D]` to the step and `[B, H*c, m, D]` to
the prefill, which is the same memory read with another shape (docs/design.md, "Graphs").

A step or a prefill that is too large to be built at once is cut into parts of whole layers
(`cut_graph`), graphs of their own that run one after the other. A manifest has the table of the whole
graph and, in order, the table and the file of each part. Whoever runs them needs one buffer for each
tensor name: those of the whole table, as ever, and one for each tensor between parts, which one part
gives and a later one takes. What only the last part changes (`position`, `codes`), the others take
as plain inputs from the buffer that the last one reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config import JukeboxConfig, PriorConfig, TransformerConfig, VQVAEConfig
from jukebox_deploy.contract import (
    Dimension,
    DimensionRange,
    GraphKind,
    GraphSpec,
    Precision,
    Role,
    TensorSpec,
)
from jukebox_deploy.errors import ConfigError


@dataclass(frozen=True)
class GraphOptions:
    """Choices that change the tables."""

    precision: Precision = Precision.FP32
    slots: tuple[int, int, int] = (1, 4, 16)  # minimum, optimum, maximum of B
    logits: bool = True  # the step also gives its logits: without them nothing sees what its last layer does


_INT, _LONG, _FLOAT = "int32", "int64", "float32"


def _input(name: str, dtype: str, *dims: Dimension) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.INPUT)


def _output(name: str, dtype: str, *dims: Dimension) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.OUTPUT)


def _state(name: str, dtype: str, *dims: Dimension, in_place: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.STATE, in_place)


def _slot_range(options: GraphOptions) -> DimensionRange:
    """All slots at once: a step."""
    return DimensionRange("B", *options.slots)


def _some_slots(options: GraphOptions) -> DimensionRange:
    """Any neighbouring slots: a prefill."""
    _, best, most = options.slots
    return DimensionRange("B", 1, best, most)


_ONE_WINDOW = DimensionRange("B", 1, 1, 1)
"""What is made when a window is loaded: for more at once, engines would keep working memory that nobody uses."""


def _vqvae_ranges(config: VQVAEConfig, level: int) -> tuple[DimensionRange, ...]:
    """One song at a time, in stretches of up to 15 seconds.

    Longer songs go through in chunks with exact overlap, and one chunk fills any device.
    """
    per_second = config.sample_rate // config.hop_length(level)
    return (DimensionRange("B", 1, 1, 1), DimensionRange("T", 1, 10 * per_second, 15 * per_second))


def declare_vqvae_encode(config: VQVAEConfig, level: int) -> GraphSpec:
    """Audio `[B, 1, hop*T]` in [-1, 1] -> codes `[B, T]`."""
    hop = config.hop_length(level)
    tensors = (_input("audio", _FLOAT, "B", 1, f"{hop}*T"), _output("codes", _LONG, "B", "T"))
    return GraphSpec(GraphKind.VQVAE_ENCODE, level, tensors, _vqvae_ranges(config, level))


def declare_vqvae_decode(config: VQVAEConfig, level: int) -> GraphSpec:
    """Codes `[B, T]` -> audio `[B, 1, hop*T]`."""
    hop = config.hop_length(level)
    tensors = (_input("codes", _LONG, "B", "T"), _output("audio", _FLOAT, "B", 1, f"{hop}*T"))
    return GraphSpec(GraphKind.VQVAE_DECODE, level, tensors, _vqvae_ranges(config, level))


def declare_condition(prior: PriorConfig) -> GraphSpec | None:
    """Labels, timing bins and upper codes of a window -> start row and conditioning rows.

    `None` for a prior that is conditioned on nothing.
    """
    tensors: list[TensorSpec] = []
    if prior.labels:
        tensors += [_input("artist", _LONG, "B"), _input("genres", _LONG, "B", prior.labels.genre_slots)]
    if prior.timing:
        tensors += [
            _input("total_bin", _LONG, "B"),
            _input("absolute_bins", _LONG, "B", prior.window),
            _input("relative_bins", _LONG, "B", prior.window),
        ]
    if prior.conditioner:
        tensors.append(_input("upper_codes", _LONG, "B", prior.window // prior.conditioner.upsampling))
    if not tensors:
        return None
    width = prior.transformer.width
    if prior.labels:
        tensors.append(_output("start", _FLOAT, "B", width))
    if prior.has_conditioning:
        tensors.append(_output("conditioning", _FLOAT, "B", prior.transformer.context, width))
    return GraphSpec(GraphKind.CONDITION, prior.level, tuple(tensors), (_ONE_WINDOW,))


def _cross_layers(config: TransformerConfig) -> list[int]:
    return [i for i, pattern in enumerate(config.patterns) if pattern is AttentionPattern.CROSS]


def declare_lyrics(prior: PriorConfig, options: GraphOptions) -> GraphSpec | None:
    """Lyric tokens of a window -> keys and values of the cross-attention layers.

    `None` for a prior without a separate lyric encoder.
    """
    if prior.lyrics is None or prior.lyrics.encoder is None:
        return None
    tensors = [_input("lyric_tokens", _LONG, "B", prior.lyrics.tokens)]
    tensors += _cross_tensors(prior.transformer, Role.OUTPUT, options.precision)
    return GraphSpec(GraphKind.LYRICS, prior.level, tuple(tensors), (_ONE_WINDOW,))


def _cross_tensors(config: TransformerConfig, role: Role, precision: Precision) -> list[TensorSpec]:
    """The lyric keys and values of each cross layer, `[B, H, L, D]`."""
    dims = ("B", config.heads, config.encoder_tokens, config.head_width)
    return [
        TensorSpec(f"cross_{what}_{layer}", precision.dtype, dims, role)
        for layer in _cross_layers(config)
        for what in ("key", "value")
    ]


def _cache_dims(config: TransformerConfig, pattern: AttentionPattern, kind: GraphKind) -> tuple[Dimension, ...]:
    heads, length, width = config.heads, config.cache_length(pattern), config.head_width
    if kind is GraphKind.PREFILL and pattern is AttentionPattern.COLUMN:
        return ("B", heads * config.block_length, config.block_count, width)
    return ("B", heads, length, width)


def _cache_tensors(config: TransformerConfig, kind: GraphKind, precision: Precision) -> list[TensorSpec]:
    """One key and one value cache per layer that has one (specification 7.1)."""
    return [
        _state(f"{what}_{layer}", precision.dtype, *_cache_dims(config, pattern, kind), in_place=True)
        for layer, pattern in enumerate(config.patterns)
        if pattern is not AttentionPattern.CROSS
        for what in ("key", "value")
    ]


def _window_tensors(prior: PriorConfig) -> list[TensorSpec]:
    """What a slot knows of its window, shared by prefill and step.

    `known_end`: positions below it hold given codes. `window_end`: positions from it on are left
    alone. `codes` are ids of the stack's vocabulary, lyrics first where they share the sequence.
    """
    context = prior.transformer.context
    tensors = [
        _state("position", _LONG, "B"),
        _input("known_end", _LONG, "B"),
    ]
    if prior.labels:
        tensors.append(_input("start", _FLOAT, "B", prior.transformer.width))
    if prior.has_conditioning:
        tensors.append(_input("conditioning", _FLOAT, "B", context, prior.transformer.width))
    return tensors


def declare_prefill(prior: PriorConfig, options: GraphOptions) -> GraphSpec:
    """One block of known codes -> filled caches; `position` moves on by a block, at most to `known_end`."""
    config = prior.transformer
    tensors = [_input("codes", _INT, "B", config.context), *_window_tensors(prior)]
    tensors += _cross_tensors(config, Role.INPUT, options.precision)
    tensors += _cache_tensors(config, GraphKind.PREFILL, options.precision)
    return GraphSpec(GraphKind.PREFILL, prior.level, tuple(tensors), (_some_slots(options),))


def declare_step(prior: PriorConfig, options: GraphOptions) -> GraphSpec:
    """One code for each slot: `codes[position]` is chosen unless known, then `position` moves on by one.

    `uniform` holds one number in [0, 1) for each position. `top_k` 0 and `top_p` 0 mean no filter,
    `temperature` 0 means the most likely code. `not_finite` turns true, and stays so until it is written
    anew, when a logit is infinite or not a number.
    """
    config = prior.transformer
    tensors = [
        _state("codes", _INT, "B", config.context),
        *_window_tensors(prior),
        _input("window_end", _LONG, "B"),
        _input("uniform", _FLOAT, "B", config.context),
        _input("temperature", _FLOAT, "B"),
        _input("top_k", _LONG, "B"),
        _input("top_p", _FLOAT, "B"),
        _state("not_finite", "bool", "B"),
    ]
    if options.logits:
        tensors.append(_output("logits", _FLOAT, "B", prior.bins))
    tensors += _cross_tensors(config, Role.INPUT, options.precision)
    tensors += _cache_tensors(config, GraphKind.STEP, options.precision)
    return GraphSpec(GraphKind.STEP, prior.level, tuple(tensors), (_slot_range(options),))


def declare_graphs(config: JukeboxConfig, options: GraphOptions | None = None) -> dict[str, GraphSpec]:
    """All graphs of a system by name, the VQ-VAE's first, then prior by prior."""
    options = options or GraphOptions()
    graphs: list[GraphSpec | None] = []
    for level in range(config.vqvae.levels):
        graphs += [declare_vqvae_encode(config.vqvae, level), declare_vqvae_decode(config.vqvae, level)]
    for prior in config.priors:
        graphs += [
            declare_condition(prior),
            declare_lyrics(prior, options),
            declare_prefill(prior, options),
            declare_step(prior, options),
        ]
    return {graph.name: graph for graph in graphs if graph is not None}


_OF_LAYER = re.compile(r"(?:cross_)?(?:key|value)_(\d+)")
_OF_ENTRY = ("codes", "start", "conditioning")


def rows_after(layer: int) -> str:
    """Name of the rows that a layer gives to the next."""
    return f"rows_{layer}"


def cut_graph(spec: GraphSpec, prior: PriorConfig, parts: int) -> tuple[GraphSpec, ...]:
    """The tables of the parts of a step or a prefill, each of about as many layers.

    A part of all layers is the graph itself. Raises `ConfigError` for another graph, and for more parts than layers.
    """
    if spec.kind not in (GraphKind.STEP, GraphKind.PREFILL) or not any(state.in_place for state in spec.states):
        raise ConfigError(f"{spec.name} is no stack of layers with caches, so it cannot be cut into parts.")
    depth = prior.transformer.depth
    if not 1 <= parts <= depth:
        raise ConfigError(f"{spec.name} has {depth} layers, which cannot be cut into {parts} parts.")
    if parts == 1:
        return (spec,)
    return tuple(
        replace(spec, tensors=tuple(_part_tensors(spec, prior, layers)), part=part)
        for part, layers in enumerate(layers_of_parts(depth, parts))
    )


def layers_of_parts(depth: int, parts: int) -> list[range]:
    """Which of a stack's layers each of its parts has."""
    borders = [depth * part // parts for part in range(parts + 1)]
    return [range(first, end) for first, end in pairwise(borders)]


def _part_tensors(spec: GraphSpec, prior: PriorConfig, layers: range) -> Iterator[TensorSpec]:
    """What goes into these layers and comes out of them, tensors between parts last."""
    first, last = layers.start == 0, layers.stop == prior.transformer.depth
    patterns = prior.transformer.patterns[layers.start : layers.stop]
    cached = any(pattern is not AttentionPattern.CROSS for pattern in patterns)
    for tensor in spec.tensors:
        layer = _OF_LAYER.fullmatch(tensor.name)
        if layer is not None:
            if int(layer[1]) in layers:
                yield tensor
        elif last and (tensor.name not in _OF_ENTRY or tensor.role is Role.STATE):
            yield tensor
        elif (first and tensor.name in _OF_ENTRY) or (tensor.name == "position" and (first or cached)):
            yield replace(tensor, role=Role.INPUT)
    yield from _between_parts(spec, prior, layers)


def _between_parts(spec: GraphSpec, prior: PriorConfig, layers: range) -> Iterator[TensorSpec]:
    config = prior.transformer
    first, last = layers.start == 0, layers.stop == config.depth
    dtype = next(tensor.dtype for tensor in spec.states if tensor.in_place)
    positions = () if spec.kind is GraphKind.STEP else (config.block_length,)
    dims = ("B", *positions, config.width)
    if not first:
        yield _input(rows_after(layers.start - 1), dtype, *dims)
    if not last:
        yield _output(rows_after(layers.stop - 1), dtype, *dims)
    if spec.kind is GraphKind.STEP and prior.readds_conditioning and first != last:
        yield TensorSpec("conditioning_rows", _FLOAT, dims, Role.OUTPUT if first else Role.INPUT)
