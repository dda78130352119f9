"""Cutting of a step or a prefill that is too large to be built at once.

The parts are graphs of whole layers that run one after the other. A manifest has the declaration of the whole graph
and, in order, the declaration and the file of each part.

To run the parts, an engine needs one buffer per tensor name: the buffers of the whole graph, and one for each tensor
between parts, which is the output of one part and an input of a later one. Only the last part updates `position` and
`codes`. To the other parts that read them they are plain inputs, in the buffer from which the last part reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.config import PriorConfig
from jukebox_deploy.contract import SLOT_GRAPHS, GraphKind, GraphSpec, Role, TensorSpec
from jukebox_deploy.errors import ConfigError

_OF_LAYER = re.compile(r"(?:cross_)?(?:key|value)_(\d+)")
_OF_ENTRY = ("codes", "start", "conditioning")


def rows_after(layer: int) -> str:
    """Return the name of the rows that a layer passes to the next one."""
    return f"rows_{layer}"


def cut_graph(spec: GraphSpec, prior: PriorConfig, parts: int) -> tuple[GraphSpec, ...]:
    """Cut a step or a prefill into parts with about equal numbers of layers, and return their declarations.

    A single part is the graph itself. Raises `ConfigError` for any other kind of graph, and for more parts than layers.
    """
    if spec.kind not in SLOT_GRAPHS or not any(state.in_place for state in spec.states):
        raise ConfigError(f"{spec.name} is not a stack of layers with caches, so it cannot be cut into parts.")
    depth = prior.transformer.depth
    if not 1 <= parts <= depth:
        raise ConfigError(f"{spec.name} has {depth} layers, which cannot be cut into {parts} parts; at most {depth}.")
    if parts == 1:
        return (spec,)
    return tuple(
        replace(spec, tensors=tuple(_part_tensors(spec, prior, layers)), part=part)
        for part, layers in enumerate(layers_of_parts(depth, parts))
    )


def layers_of_parts(depth: int, parts: int) -> list[range]:
    """Return the range of layers of each part of a stack."""
    borders = [depth * part // parts for part in range(parts + 1)]
    return [range(first, end) for first, end in pairwise(borders)]


def _part_tensors(spec: GraphSpec, prior: PriorConfig, layers: range) -> Iterator[TensorSpec]:
    """Yield the tensors of the part that has these layers; the tensors between parts come last."""
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
    # A prefill of blocks of one position has the rows of a step, see `Transformer.forward_cached`.
    positions = () if spec.kind is GraphKind.STEP or config.block_length == 1 else (config.block_length,)
    dims = ("B", *positions, config.width)
    if not first:
        yield TensorSpec(rows_after(layers.start - 1), dtype, dims, Role.INPUT)
    if not last:
        yield TensorSpec(rows_after(layers.stop - 1), dtype, dims, Role.OUTPUT)
    if spec.kind is GraphKind.STEP and prior.readds_conditioning and first != last:
        yield TensorSpec("conditioning_rows", "float32", dims, Role.OUTPUT if first else Role.INPUT)
