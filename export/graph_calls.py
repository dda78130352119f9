"""Division of graphs into calls of a few modules, so that a stack of 72 layers is traced as fast as one of four.

The layers of one attention pattern differ only in their weights. A step or a prefill computes addresses in the caches,
and then consists of an entry, its layers and an exit. Each kind of module is traced once, and the calls can be divided
among the parts of a cut graph. Every other graph is a single call. All tensors between the modules of a prior's graph
have the slots, `B`, as their first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode  # the documented extension point has no other home
from torch.utils._pytree import tree_leaves

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.contract import GraphKind, GraphSpec, TensorSpec
from jukebox_deploy.export.graph_modules import GraphModule, WindowGraph
from jukebox_deploy.export.stack_modules import (
    CachedLayerModule,
    CrossLayerModule,
    EntryModule,
    LocateModule,
    PrefillExitModule,
    StepExitModule,
)
from jukebox_deploy.graph_cutting import rows_after
from jukebox_deploy.models.transformer import Layer

_Item = TypeVar("_Item")

MODEL_PREFIX = "model."
"""Prefix of the parameters' names in every module: its attribute `model` has the weights."""


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module: the names of its input and output tensors, and the weights that it uses."""

    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scope: str = ""  # prefix of the weights' names in the model


@dataclass(frozen=True)
class GraphCalls:
    """The modules of a graph, whose weights are under `model`, and their calls in order."""

    modules: dict[str, nn.Module]
    calls: tuple[ModuleCall, ...]


@dataclass(frozen=True)
class Piece:
    """The first call of a module, with the tensors that are needed to trace it."""

    module: nn.Module
    call: ModuleCall
    inputs: tuple[Tensor, ...]  # example inputs
    parameters: dict[str, Tensor]  # the parameters that it uses, by their names in the module
    results: tuple[Tensor, ...]

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """Copies of inputs and parameters, because a tensor of several pieces would be traced as a single input."""
        return tuple(tensor.detach().clone() for tensor in (*self.inputs, *self.parameters.values()))


class SideBySide(nn.Module):
    """Independent pieces of graphs as one function, so that they can be traced together.

    Parameters are inputs of this function rather than its own. Tracing then handles only those that a module uses, and
    does not iterate over the parameters of all layers at every node.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._pieces = list(pieces)  # a plain list, so that their parameters are not registered as this module's

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the arguments of all pieces, one after the other, to their results."""
        rest = list(tensors)
        results: list[Tensor] = []
        for piece in self._pieces:
            inputs, rest = split_at(rest, len(piece.inputs))
            values, rest = split_at(rest, len(piece.parameters))
            result = functional_call(piece.module, dict(zip(piece.parameters, values, strict=True)), tuple(inputs))
            results += result if isinstance(result, tuple) else (result,)
        return tuple(results)


def split_at(values: list[_Item], count: int) -> tuple[list[_Item], list[_Item]]:
    """Return the first `count` values, and the rest."""
    return values[:count], values[count:]


class _UsedTensors(TorchDispatchMode):
    """The set of tensors that operators use as arguments inside its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._identities: set[int] = set()

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._identities

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._identities |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return operator(*args, **(kwargs or {}))


def make_piece(module: nn.Module, call: ModuleCall, inputs: Sequence[Tensor]) -> Piece:
    """Run a module on example inputs, and find the parameters and buffers of its `model` that it uses."""
    with _UsedTensors() as used:
        results = module(*inputs)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    parameters = {name: t for name, t in named.items() if name.startswith(MODEL_PREFIX) and t in used}
    return Piece(module, call, tuple(inputs), parameters, results if isinstance(results, tuple) else (results,))


def graph_calls(module: GraphModule) -> GraphCalls:
    """Return the modules of a graph, and their calls."""
    if isinstance(module, WindowGraph):
        return _split_stack(module)
    spec = module.spec
    inputs = tuple(t.input_name for t in spec.inputs)
    return GraphCalls({"whole": module}, (ModuleCall("whole", inputs, tuple(t.output_name for t in spec.outputs)),))


def _split_stack(graph: WindowGraph) -> GraphCalls:
    locate = LocateModule(graph)
    entry = EntryModule(graph)
    modules: dict[str, nn.Module] = {"locate": locate, "entry": entry}
    calls = [
        ModuleCall("locate", locate.input_names, locate.output_names),
        ModuleCall("entry", entry.input_names, entry.output_names),
    ]
    rows = "rows"
    for index, layer in enumerate(graph.model.core.transformer.typed_layers()):
        pattern = layer.attention.pattern
        if pattern not in modules:
            modules[pattern] = _layer_module(locate, layer)
        call = _layer_call(locate, pattern, index, rows)
        calls.append(call)
        rows = call.outputs[0]
    leave = (StepExitModule if graph.spec.kind is GraphKind.STEP else PrefillExitModule)(graph)
    modules["exit"] = leave
    calls.append(ModuleCall("exit", (*leave.hidden_names(rows), *leave.input_names), leave.output_names))
    return GraphCalls(modules, tuple(calls))


def _layer_module(locate: LocateModule, layer: Layer) -> nn.Module:
    if layer.attention.pattern is AttentionPattern.CROSS:
        return CrossLayerModule(layer)
    return CachedLayerModule(layer, locate.patterns[layer.attention.pattern], locate.fields[layer.attention.pattern])


def _layer_call(locate: LocateModule, pattern: AttentionPattern, index: int, rows: str) -> ModuleCall:
    scope = f"core.transformer.layers.{index}."
    if pattern is AttentionPattern.CROSS:
        inputs: tuple[str, ...] = (rows, f"cross_key_{index}", f"cross_value_{index}")
        return ModuleCall(pattern, inputs, (rows_after(index),), scope)
    addresses = tuple(f"{pattern}_{field}" for field in locate.fields[pattern])
    inputs = (rows, *addresses, f"past_key_{index}", f"past_value_{index}")
    return ModuleCall(pattern, inputs, (rows_after(index), f"present_key_{index}", f"present_value_{index}"), scope)


def cut_calls(whole: GraphSpec, calls: Sequence[ModuleCall], part: GraphSpec) -> tuple[ModuleCall, ...]:
    """Return the calls of a part of a cut graph: those that its outputs depend on, back to its inputs."""
    renamed = {whole.tensor(t.name).input_name: t.input_name for t in part.inputs if _has(whole, t)}
    given = {tensor.input_name for tensor in part.inputs}
    wanted = {tensor.output_name for tensor in part.outputs}
    chosen: list[ModuleCall] = []
    for call in reversed(calls):
        if not wanted.isdisjoint(call.outputs):
            inputs = tuple(renamed.get(name, name) for name in call.inputs)
            chosen.append(replace(call, inputs=inputs))
            wanted |= set(inputs) - given
    return tuple(reversed(chosen))


def _has(whole: GraphSpec, tensor: TensorSpec) -> bool:
    return any(other.name == tensor.name for other in whole.tensors)
