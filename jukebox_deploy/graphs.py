"""Declarations of all graphs; every graph input and output is named here and nowhere else.

Symbols: `B` is the number of slots (in graphs that have none, of windows or songs), `T` the number of codes of a
stretch of audio. Tensors of the step and the prefill that have the same name share a buffer. The column caches are
`[B, H, c*m, D]` in the step and `[B, H*c, m, D]` in the prefill: two shapes of the same memory (docs/design.md,
"Graphs").
"""

from __future__ import annotations

from dataclasses import dataclass

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.chunks import encoder_context
from jukebox_deploy.config import JukeboxConfig, PriorConfig, TransformerConfig, VQVAEConfig
from jukebox_deploy.contract import Dimension, DimensionRange, GraphKind, GraphSpec, Precision, Role, TensorSpec
from jukebox_deploy.receptive_field import ReceptiveField, decoder_receptive_field


@dataclass(frozen=True)
class GraphOptions:
    """The export options on which the declarations depend."""

    precision: Precision = Precision.FP32
    slots: tuple[int, int, int] = (1, 4, 16)  # minimum, optimum, maximum of B
    logits: bool = True  # output the step's logits: no other output shows what the last layer computes


_INT, _LONG, _FLOAT = "int32", "int64", "float32"


def _input(name: str, dtype: str, *dims: Dimension) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.INPUT)


def _output(name: str, dtype: str, *dims: Dimension) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.OUTPUT)


def _state(name: str, dtype: str, *dims: Dimension, in_place: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, dims, Role.STATE, in_place)


def _slot_range(options: GraphOptions) -> DimensionRange:
    """The numbers of slots of a step, which runs all slots at once."""
    return DimensionRange("B", *options.slots)


def _some_slots(options: GraphOptions) -> DimensionRange:
    """The numbers of slots of a prefill, which runs any consecutive slots."""
    _, best, most = options.slots
    return DimensionRange("B", 1, best, most)


_ONE_WINDOW = DimensionRange("B", 1, 1, 1)
"""Range of the graphs that run once when a window is loaded: a larger maximum would only cost working memory."""


_FEWEST_CODES = 64
"""Number of codes that every graph of the VQ-VAE accepts at once, however few codes per second its level has."""


def _vqvae_ranges(config: VQVAEConfig, level: int, field: ReceptiveField) -> tuple[DimensionRange, ...]:
    """One song at a time, in stretches of up to 15 seconds, or more if the context would leave less than one second.

    Longer songs are processed in chunks that overlap such that the result is exact. One chunk keeps any device busy.
    """
    per_second = max(1, config.sample_rate // config.hop_length(level))
    context, longest = field.before + field.after, max(15 * per_second, _FEWEST_CODES)
    if longest < context + per_second:
        longest = context + 10 * per_second
    return (DimensionRange("B", 1, 1, 1), DimensionRange("T", 1, 10 * per_second, longest))


def declare_vqvae_encode(config: VQVAEConfig, level: int) -> GraphSpec:
    """Declare the graph audio `[B, 1, hop*T]` in [-1, 1] -> codes `[B, T]`."""
    hop = config.hop_length(level)
    tensors = (_input("audio", _FLOAT, "B", 1, f"{hop}*T"), _output("codes", _LONG, "B", "T"))
    return GraphSpec(
        GraphKind.VQVAE_ENCODE, level, tensors, _vqvae_ranges(config, level, encoder_context(config, level))
    )


def declare_vqvae_decode(config: VQVAEConfig, level: int) -> GraphSpec:
    """Declare the graph codes `[B, T]` -> audio `[B, 1, hop*T]`."""
    hop = config.hop_length(level)
    tensors = (_input("codes", _LONG, "B", "T"), _output("audio", _FLOAT, "B", 1, f"{hop}*T"))
    ranges = _vqvae_ranges(config, level, decoder_receptive_field(config, level))
    return GraphSpec(GraphKind.VQVAE_DECODE, level, tensors, ranges)


def declare_condition(prior: PriorConfig) -> GraphSpec | None:
    """Declare the graph labels, timing bins and upper codes of a window -> start row and conditioning rows.

    Returns `None` for a prior without conditioning.
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
    """Declare the graph lyric tokens of a window -> keys and values of the cross-attention layers.

    Returns `None` for a prior without a separate lyric encoder.
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
    """The inputs and states, apart from `codes` and the caches, that a slot's window has in both prefill and step.

    Codes at positions below `known_end` are given. `codes` holds ids of the stack's vocabulary, lyrics first where they
    share the sequence.
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
    """Declare the graph one block of known codes -> filled caches.

    A run advances `position` by one block, at most to `known_end`.
    """
    config = prior.transformer
    tensors = [_input("codes", _INT, "B", config.context), *_window_tensors(prior)]
    tensors += _cross_tensors(config, Role.INPUT, options.precision)
    tensors += _cache_tensors(config, GraphKind.PREFILL, options.precision)
    return GraphSpec(GraphKind.PREFILL, prior.level, tuple(tensors), (_some_slots(options),))


def declare_step(prior: PriorConfig, options: GraphOptions) -> GraphSpec:
    """Declare the graph that computes one code for each slot.

    A run chooses `codes[position]`, unless this code is known, and advances `position` by one. Positions from
    `window_end` on are left unchanged. `uniform` holds one number in [0, 1) for each position. `top_k` 0 and `top_p` 0
    mean no filter; `temperature` 0 means the most likely code. `not_finite` is set when a logit is infinite or NaN; the
    step never clears it.
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


def declare_prior(prior: PriorConfig, options: GraphOptions | None = None) -> tuple[GraphSpec, ...]:
    """Declare the graphs of a prior, those without states first."""
    options = options or GraphOptions()
    conditions = (declare_condition(prior), declare_lyrics(prior, options))
    slots = (declare_prefill(prior, options), declare_step(prior, options))
    return (*(graph for graph in conditions if graph is not None), *slots)


def declare_graphs(config: JukeboxConfig, options: GraphOptions | None = None) -> dict[str, GraphSpec]:
    """Declare all graphs of a system, by name: those of the VQ-VAE first, then prior by prior."""
    graphs: list[GraphSpec] = []
    for level in range(config.vqvae.levels):
        graphs += [declare_vqvae_encode(config.vqvae, level), declare_vqvae_decode(config.vqvae, level)]
    for prior in config.priors:
        graphs += declare_prior(prior, options)
    return {graph.name: graph for graph in graphs}
