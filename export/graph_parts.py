"""Graphs as calls of few different parts, so that a stack of 72 layers is traced as fast as one of four.

The layers of one attention pattern differ in their weights alone. A step or a prefill is an entry,
its layers, and an exit; each kind of part is traced once. Every other graph is one part.
All tensors between the parts of a prior's graph have the slots, `B`, as their first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode  # the documented extension point has no other home
from torch.utils._pytree import tree_leaves

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.export.graph_modules import GraphModule, Named, WindowGraph
from jukebox_deploy.models.cached_attention import Address, CachePattern, KeyValue
from jukebox_deploy.models.prior import Choice, Entry
from jukebox_deploy.models.transformer import Layer

_Item = TypeVar("_Item")

MODEL_PREFIX = "model."
"""What every part calls the module whose parameters it uses."""


@dataclass(frozen=True)
class PartCall:
    """One use of a part: which tensors go in and come out, and which weights it has."""

    part: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scope: str = ""  # where in the model the part's weights are, as a prefix of their names


@dataclass(frozen=True)
class GraphParts:
    """The different parts of a graph, each a module whose weights are under `model`, and their calls."""

    modules: dict[str, nn.Module]
    calls: tuple[PartCall, ...]


@dataclass(frozen=True)
class Piece:
    """A part where it is called first: what tracing needs of it."""

    module: nn.Module
    call: PartCall
    inputs: tuple[Tensor, ...]  # examples
    parameters: dict[str, Tensor]  # those that it uses, by their names in the module
    results: tuple[Tensor, ...]

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """Inputs and parameters. One tensor in two pieces would be traced as one: each gets its own."""
        return tuple(tensor.detach().clone() for tensor in (*self.inputs, *self.parameters.values()))


class SideBySide(nn.Module):
    """Pieces of graphs as one function, none of which sees another's results: traced in one go.

    Parameters are inputs of this function, not its own: tracing then sees only those that a part uses,
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


def make_piece(module: nn.Module, call: PartCall, inputs: Sequence[Tensor]) -> Piece:
    """Run a part on example inputs, and see which parameters and buffers of its `model` it uses."""
    with _UsedTensors() as used:
        results = module(*inputs)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    parameters = {name: t for name, t in named.items() if name.startswith(MODEL_PREFIX) and t in used}
    return Piece(module, call, tuple(inputs), parameters, results if isinstance(results, tuple) else (results,))


def split_graph(module: GraphModule) -> GraphParts:
    """The parts of a graph."""
    if isinstance(module, WindowGraph):
        return _split_stack(module)
    spec = module.spec
    inputs = tuple(t.input_name for t in spec.inputs)
    return GraphParts({"whole": module}, (PartCall("whole", inputs, tuple(t.output_name for t in spec.outputs)),))


def _split_stack(graph: WindowGraph) -> GraphParts:
    entry = EntryPart(graph)
    modules: dict[str, nn.Module] = {"entry": entry}
    calls = [PartCall("entry", entry.input_names, entry.output_names)]
    rows = "rows"
    for index, layer in enumerate(graph.model.core.transformer.typed_layers()):
        pattern = layer.attention.pattern
        if pattern not in modules:
            modules[pattern] = _layer_part(entry, layer)
        call = _layer_call(entry, pattern, index, rows)
        calls.append(call)
        rows = call.outputs[0]
    leave = (StepExitPart if graph.spec.kind is GraphKind.STEP else PrefillExitPart)(entry)
    modules["exit"] = leave
    calls.append(PartCall("exit", (*leave.hidden_names(rows), *leave.input_names), leave.output_names))
    return GraphParts(modules, tuple(calls))


def _layer_part(entry: EntryPart, layer: Layer) -> nn.Module:
    if layer.attention.pattern is AttentionPattern.CROSS:
        return CrossLayerPart(layer)
    return CachedLayerPart(layer, entry.patterns[layer.attention.pattern], entry.fields[layer.attention.pattern])


def _layer_call(entry: EntryPart, pattern: AttentionPattern, index: int, rows: str) -> PartCall:
    scope = f"core.transformer.layers.{index}."
    if pattern is AttentionPattern.CROSS:
        inputs: tuple[str, ...] = (rows, f"cross_key_{index}", f"cross_value_{index}")
        return PartCall(pattern, inputs, (f"rows_{index}",), scope)
    addresses = tuple(f"{pattern}_{field}" for field in entry.fields[pattern])
    inputs = (rows, *addresses, f"past_key_{index}", f"past_value_{index}")
    return PartCall(pattern, inputs, (f"rows_{index}", f"present_key_{index}", f"present_value_{index}"), scope)


class EntryPart(nn.Module):
    """From a window's state to rows of the stack and addresses in the caches."""

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.graph_spec = graph.spec
        self.model = graph.model
        self.gather_window = graph.window
        transformer = graph.model.core.transformer
        self.queries = 1 if graph.spec.kind is GraphKind.STEP else transformer.geometry.block_length
        self.patterns: dict[AttentionPattern, CachePattern] = transformer.cache_patterns(self.queries)
        self.fields = {name: pattern.address_fields for name, pattern in self.patterns.items()}
        self.names = [t.name for t in graph.spec.inputs if t.name in _ENTRY_INPUTS]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the graph of what goes in."""
        return tuple(self.graph_spec.tensor(name).input_name for name in self.names)

    @property
    def carries_conditioning(self) -> bool:
        """Whether the exit needs the conditioning rows again."""
        return self.model.readds_conditioning

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the graph of what comes out."""
        carried = ("conditioning_rows",) if self.carries_conditioning else ()
        addresses = (f"{name}_{field}" for name, fields in self.fields.items() for field in fields)
        return ("rows", "entry_position", *carried, *addresses)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """In the order of `input_names`, out in the order of `output_names`."""
        window = self.gather_window(dict(zip(self.names, tensors, strict=True)))
        entry = self.model.enter(window, self.queries)
        carried = (entry.conditioning,) if self.carries_conditioning else ()
        addresses = (getattr(entry.addresses[n], field) for n, fields in self.fields.items() for field in fields)
        return tuple(t for t in (entry.rows, entry.position, *carried, *addresses) if t is not None)


_ENTRY_INPUTS = ("codes", "position", "known_end", "start", "conditioning")


class CachedLayerPart(nn.Module):
    """A layer with a cache."""

    def __init__(self, layer: Layer, pattern: CachePattern, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.model = layer
        self.pattern = pattern
        self.fields = fields

    def forward(self, rows: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, address fields, past key, past value -> rows, present key, present value."""
        *address, key, value = tensors
        fields: dict[str, Any] = dict(zip(self.fields, address, strict=True))
        rows, present = self.model.forward_cached(rows, self.pattern, Address(**fields), KeyValue(key, value))
        return rows, present.key, present.value


class CrossLayerPart(nn.Module):
    """A layer that looks at the lyrics."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.model = layer

    def forward(self, rows: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Rows, the lyrics' keys and values -> rows."""
        return self.model.forward_cross(rows, KeyValue(key, value))


class _ExitPart(nn.Module):
    """From the stack's output and the window's state to what the graph gives."""

    names: tuple[str, ...]

    def __init__(self, entry: EntryPart) -> None:
        super().__init__()
        self.graph_spec: GraphSpec = entry.graph_spec
        self.gather_window = entry.gather_window
        self.carries_conditioning = entry.carries_conditioning
        self.model = entry.model

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the graph of the window's state."""
        return tuple(self.graph_spec.tensor(name).input_name for name in self.names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the graph of what comes out: all outputs but the caches."""
        return tuple(t.output_name for t in self.graph_spec.outputs if not t.in_place)

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Names in the graph of what comes from the stack and the entry."""
        raise NotImplementedError


class StepExitPart(_ExitPart):
    """Logits, and the choice of the next code."""

    names = ("codes", "position", "known_end", *Choice._fields)

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """The stack's output, the clamped position, and the conditioning rows if they are added again."""
        return (rows, "entry_position", *(("conditioning_rows",) if self.carries_conditioning else ()))

    def forward(self, hidden: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """In the order of `hidden_names` and `input_names`, out in the order of `output_names`."""
        conditioning, tensors = (tensors[0], tensors[1:]) if self.carries_conditioning else (None, tensors)
        named: Named = dict(zip(self.names, tensors, strict=True))
        choice = Choice(**{name: named[name] for name in Choice._fields})
        entry = Entry(hidden, conditioning, position, {})
        result = self.model.leave_step(hidden, entry, self.gather_window(named), choice)
        return tuple(getattr(result, t.name) for t in self.graph_spec.outputs if not t.in_place)


class PrefillExitPart(_ExitPart):
    """The new position."""

    names = ("codes", "position", "known_end")

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Nothing: a prefill is there for its caches."""
        return ()

    def forward(self, *tensors: Tensor) -> Tensor:
        """In the order of `input_names` -> the new position."""
        return self.model.leave_prefill(self.gather_window(dict(zip(self.names, tensors, strict=True))))
