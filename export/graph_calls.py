"""Graphs as calls of few different modules, so that a stack of 72 layers is traced as fast as one of four.

The layers of one attention pattern differ in their weights alone. A step or a prefill finds its place
in the caches, enters, goes through its layers, and exits; each kind of module is traced once, and the
calls can be divided among the parts of a cut graph. Every other graph is one call. All tensors between
the modules of a prior's graph have the slots, `B`, as their first axis.
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
from jukebox_deploy.graphs import rows_after
from jukebox_deploy.models.transformer import Layer

_Item = TypeVar("_Item")

MODEL_PREFIX = "model."
"""What every module of a graph calls the one whose parameters it uses."""


@dataclass(frozen=True)
class ModuleCall:
    """One use of a module: which tensors go in and come out, and which weights it has."""

    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scope: str = ""  # where in the model the module's weights are, as a prefix of their names


@dataclass(frozen=True)
class GraphCalls:
    """The different modules of a graph, whose weights are under `model`, and their calls."""

    modules: dict[str, nn.Module]
    calls: tuple[ModuleCall, ...]


@dataclass(frozen=True)
class Piece:
    """A module where it is called first: what tracing needs of it."""

    module: nn.Module
    call: ModuleCall
    inputs: tuple[Tensor, ...]  # examples
    parameters: dict[str, Tensor]  # those that it uses, by their names in the module
    results: tuple[Tensor, ...]

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """Inputs and parameters. One tensor in two pieces would be traced as one: each gets its own."""
        return tuple(tensor.detach().clone() for tensor in (*self.inputs, *self.parameters.values()))


class SideBySide(nn.Module):
    """Pieces of graphs as one function, none of which sees another's results: traced in one go.

    Parameters are inputs of this function, not its own: tracing then sees only those that a module uses,
    and does not go through those of all layers at every node.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._pieces = list(pieces)  # a plain list: a module's parameters must not become this one's

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The arguments of all pieces in turn -> their results in turn."""
        rest = list(tensors)
        results: list[Tensor] = []
        for piece in self._pieces:
            inputs, rest = split_at(rest, len(piece.inputs))
            values, rest = split_at(rest, len(piece.parameters))
            result = functional_call(piece.module, dict(zip(piece.parameters, values, strict=True)), tuple(inputs))
            results += result if isinstance(result, tuple) else (result,)
        return tuple(results)


def split_at(values: list[_Item], count: int) -> tuple[list[_Item], list[_Item]]:
    """The first so many, and the rest."""
    return values[:count], values[count:]


class _UsedTensors(TorchDispatchMode):
    """Which tensors the operators in its context take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives it no types
        self._identities: set[int] = set()

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._identities

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._identities |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return operator(*args, **(kwargs or {}))


def make_piece(module: nn.Module, call: ModuleCall, inputs: Sequence[Tensor]) -> Piece:
    """Run a module on example inputs, and see which parameters and buffers of its `model` it uses."""
    with _UsedTensors() as used:
        results = module(*inputs)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    parameters = {name: t for name, t in named.items() if name.startswith(MODEL_PREFIX) and t in used}
    return Piece(module, call, tuple(inputs), parameters, results if isinstance(results, tuple) else (results,))


def graph_calls(module: GraphModule) -> GraphCalls:
    """The modules of a graph and their calls."""
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
    """The calls that a part of a cut graph makes: back from what it gives, as far as what it is given."""
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
