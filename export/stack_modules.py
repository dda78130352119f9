"""The modules of which the graph of a stack consists; each is traced once, however often it is called.

Each module has its weights under `model`. The names of its inputs and outputs are those of tensors of the graph.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from jukebox_deploy.attention_patterns import AttentionPattern
from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.export.graph_modules import Named, WindowGraph
from jukebox_deploy.models.cached_attention import Address, CachePattern, KeyValue
from jukebox_deploy.models.prior import Choice, Entry
from jukebox_deploy.models.transformer import Layer


def _queries(graph: WindowGraph) -> int:
    """Return the number of positions of a slot that one run of the graph processes."""
    return 1 if graph.spec.kind is GraphKind.STEP else graph.model.core.transformer.geometry.block_length


class LocateModule(nn.Module):
    """Maps a window's position to addresses in the caches."""

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.model = graph.model
        self.queries = _queries(graph)
        self.input_names = (graph.spec.tensor("position").input_name,)
        self.patterns: dict[AttentionPattern, CachePattern] = self.model.core.transformer.cache_patterns(self.queries)
        self.fields = {name: pattern.address_fields for name, pattern in self.patterns.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the graph."""
        return ("entry_position", *(f"{name}_{field}" for name, fields in self.fields.items() for field in fields))

    def forward(self, position: Tensor) -> tuple[Tensor, ...]:
        """Map the position to the outputs, in the order of `output_names`."""
        position, addresses = self.model.locate(position, self.queries)
        return (position, *(getattr(addresses[n], field) for n, fields in self.fields.items() for field in fields))


class EntryModule(nn.Module):
    """Maps a window's state to the stack's input rows."""

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.model = graph.model
        self.gather_window = graph.window
        self.queries = _queries(graph)
        self.names = [t.name for t in graph.spec.inputs if t.name in ("codes", "start", "conditioning")]
        self.state_names = tuple(graph.spec.tensor(name).input_name for name in self.names)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs in the graph."""
        return ("entry_position", *self.state_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the graph, with the conditioning rows if the exit of a step adds them again."""
        return ("rows", "conditioning_rows") if self.model.readds_conditioning else ("rows",)

    def forward(self, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs, in the order of `input_names`, to the outputs, in the order of `output_names`."""
        named = dict(zip(self.names, tensors, strict=True))
        window = self.gather_window(named | {"position": position, "known_end": position})  # `known_end` is not used
        rows, conditioning = self.model.embed(window, position, self.queries)
        return (rows,) if conditioning is None or not self.model.readds_conditioning else (rows, conditioning)


class CachedLayerModule(nn.Module):
    """A layer with a KV cache."""

    def __init__(self, layer: Layer, pattern: CachePattern, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.model = layer
        self.pattern = pattern
        self.fields = fields

    def forward(self, rows: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map rows, address fields, past key and past value to rows, present key and present value."""
        *address, key, value = tensors
        fields: dict[str, Any] = dict(zip(self.fields, address, strict=True))
        rows, present = self.model.forward_cached(rows, self.pattern, Address(**fields), KeyValue(key, value))
        return rows, present.key, present.value


class CrossLayerModule(nn.Module):
    """A cross-attention layer, which attends to the lyrics."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.model = layer

    def forward(self, rows: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map rows and the lyrics' keys and values to rows."""
        return self.model.forward_cross(rows, KeyValue(key, value))


class ExitModule(nn.Module):
    """Maps the stack's output and the window's state to the outputs of the graph."""

    names: tuple[str, ...]

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.graph_spec: GraphSpec = graph.spec
        self.gather_window = graph.window
        self.model = graph.model

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the graph of the inputs from the window's state."""
        return tuple(self.graph_spec.tensor(name).input_name for name in self.names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in the graph, which are all outputs except the caches."""
        return tuple(t.output_name for t in self.graph_spec.outputs if not t.in_place)

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Return the names in the graph of the inputs from other modules; `rows` is the stack's output."""
        raise NotImplementedError


class StepExitModule(ExitModule):
    """Exit of a step: computes logits, and chooses the next code."""

    names = ("codes", "position", "known_end", *Choice._fields)

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Return the names of the stack's output, the position, and the conditioning rows if they are added again."""
        return (rows, "entry_position", *(("conditioning_rows",) if self.model.readds_conditioning else ()))

    def forward(self, hidden: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Map the inputs, in the order of `hidden_names` and `input_names`, to those in the order of `output_names`."""
        conditioning, tensors = (tensors[0], tensors[1:]) if self.model.readds_conditioning else (None, tensors)
        named: Named = dict(zip(self.names, tensors, strict=True))
        choice = Choice(**{name: named[name] for name in Choice._fields})
        entry = Entry(hidden, conditioning, position, {})
        result = self.model.leave_step(hidden, entry, self.gather_window(named), choice)
        return tuple(getattr(result, t.name) for t in self.graph_spec.outputs if not t.in_place)


class PrefillExitModule(ExitModule):
    """Exit of a prefill: computes the new position."""

    names = ("position", "known_end")

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Return no names: a prefill only fills caches, and does not use the stack's output."""
        return ()

    def forward(self, position: Tensor, known_end: Tensor) -> Tensor:
        """Map position and known end to the new position."""
        return self.model.leave_prefill(position, known_end)
