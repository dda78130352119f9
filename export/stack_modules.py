"""The modules that the graph of a stack is made of, each traced once however often it is called.

Each has its weights under `model`, and says which tensors of the graph go in and come out.
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
    """Positions of a slot that the graph works on."""
    return 1 if graph.spec.kind is GraphKind.STEP else graph.model.core.transformer.geometry.block_length


class LocateModule(nn.Module):
    """From a window's position to addresses in the caches."""

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.model = graph.model
        self.queries = _queries(graph)
        self.input_names = (graph.spec.tensor("position").input_name,)
        self.patterns: dict[AttentionPattern, CachePattern] = self.model.core.transformer.cache_patterns(self.queries)
        self.fields = {name: pattern.address_fields for name, pattern in self.patterns.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the graph of what comes out."""
        return ("entry_position", *(f"{name}_{field}" for name, fields in self.fields.items() for field in fields))

    def forward(self, position: Tensor) -> tuple[Tensor, ...]:
        """Position -> in the order of `output_names`."""
        position, addresses = self.model.locate(position, self.queries)
        return (position, *(getattr(addresses[n], field) for n, fields in self.fields.items() for field in fields))


class EntryModule(nn.Module):
    """From a window's state to rows of the stack."""

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.model = graph.model
        self.gather_window = graph.window
        self.queries = _queries(graph)
        self.names = [t.name for t in graph.spec.inputs if t.name in ("codes", "start", "conditioning")]
        self.state_names = tuple(graph.spec.tensor(name).input_name for name in self.names)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names in the graph of what goes in."""
        return ("entry_position", *self.state_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names in the graph of what comes out; the exit of a step may need the conditioning rows again."""
        return ("rows", "conditioning_rows") if self.model.readds_conditioning else ("rows",)

    def forward(self, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """In the order of `input_names`, out in the order of `output_names`."""
        named = dict(zip(self.names, tensors, strict=True))
        window = self.gather_window(named | {"position": position, "known_end": position})  # it needs no known end
        rows, conditioning = self.model.embed(window, position, self.queries)
        return (rows,) if conditioning is None or not self.model.readds_conditioning else (rows, conditioning)


class CachedLayerModule(nn.Module):
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


class CrossLayerModule(nn.Module):
    """A layer that looks at the lyrics."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.model = layer

    def forward(self, rows: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Rows, the lyrics' keys and values -> rows."""
        return self.model.forward_cross(rows, KeyValue(key, value))


class ExitModule(nn.Module):
    """From the stack's output and the window's state to what the graph gives."""

    names: tuple[str, ...]

    def __init__(self, graph: WindowGraph) -> None:
        super().__init__()
        self.graph_spec: GraphSpec = graph.spec
        self.gather_window = graph.window
        self.model = graph.model

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


class StepExitModule(ExitModule):
    """Logits, and the choice of the next code."""

    names = ("codes", "position", "known_end", *Choice._fields)

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """The stack's output, the position within the context, and the conditioning rows if they are added again."""
        return (rows, "entry_position", *(("conditioning_rows",) if self.model.readds_conditioning else ()))

    def forward(self, hidden: Tensor, position: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """In the order of `hidden_names` and `input_names`, out in the order of `output_names`."""
        conditioning, tensors = (tensors[0], tensors[1:]) if self.model.readds_conditioning else (None, tensors)
        named: Named = dict(zip(self.names, tensors, strict=True))
        choice = Choice(**{name: named[name] for name in Choice._fields})
        entry = Entry(hidden, conditioning, position, {})
        result = self.model.leave_step(hidden, entry, self.gather_window(named), choice)
        return tuple(getattr(result, t.name) for t in self.graph_spec.outputs if not t.in_place)


class PrefillExitModule(ExitModule):
    """The new position."""

    names = ("position", "known_end")

    def hidden_names(self, rows: str) -> tuple[str, ...]:
        """Nothing: a prefill is there for its caches."""
        return ()

    def forward(self, position: Tensor, known_end: Tensor) -> Tensor:
        """Position and known end -> the new position."""
        return self.model.leave_prefill(position, known_end)
