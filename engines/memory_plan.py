"""How much device memory a prior takes with some slots, and how many slots fit.

Derived from the graphs' tables, so it says what the sessions allocate: caches once, other states
twice (the step reads one buffer and writes the other), everything else once, and between the parts
of a graph that was cut, what each hands over. Beside the slots the graphs stay open that work out what
a window is conditioned on, one window at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, Precision, Role, TensorSpec
from jukebox_deploy.costs import WeightStorage, weight_bytes
from jukebox_deploy.engines.manifest import Manifest
from jukebox_deploy.graphs import GraphOptions, declare_graphs

_OF_SLOTS = (GraphKind.STEP, GraphKind.PREFILL)
_OF_WINDOWS = (GraphKind.CONDITION, GraphKind.LYRICS)


@dataclass(frozen=True)
class PriorMemory:
    """Bytes that sampling with one prior takes."""

    level: int
    precision: Precision
    weights: int
    caches_per_slot: int
    window_per_slot: int  # codes, conditioning rows, lyric keys and values, random numbers, settings
    activations: int | None  # what engines need beside tensors at their largest shapes, where they say it
    most_slots: int  # that the graphs take
    hand_over_per_slot: int = 0  # between the parts of step and prefill
    one_window: int = 0  # what goes into and comes out of the graphs that condition a window
    fewest_slots: int = 1  # that the step takes

    @property
    def per_slot(self) -> int:
        """Bytes that each further slot takes."""
        return self.caches_per_slot + self.window_per_slot + self.hand_over_per_slot

    def total(self, slots: int) -> int:
        """Bytes with that many slots; without activations where they are not known."""
        return self.weights + (self.activations or 0) + self.one_window + slots * self.per_slot

    def slots_within(self, memory: int) -> int:
        """The most slots that fit into that many bytes; 0 if not even the fewest do."""
        room = min((memory - self.total(0)) // self.per_slot, self.most_slots)
        return room if room >= self.fewest_slots else 0


def plan_manifest(manifest: Manifest) -> list[PriorMemory]:
    """The priors of an engine bundle, level 0 first; the weights are those of its files."""
    specs = {name: entry.spec for name, entry in manifest.graphs.items()}
    plans = (
        _plan(specs, level, manifest.precision, _stored_weights(manifest, level), _activations(manifest, level))
        for level in _levels(specs)
    )
    return [replace(plan, hand_over_per_slot=_hand_over(manifest, plan.level)) for plan in plans]


def plan_config(config: JukeboxConfig, precision: Precision) -> list[PriorMemory]:
    """The priors of a model as they would be exported; step and prefill share their weights."""
    specs = declare_graphs(config, GraphOptions(precision=precision))
    storage = WeightStorage.SINGLE if precision is Precision.FP32 else WeightStorage.HALF_LINEAR
    return [
        _plan(specs, level, precision, weight_bytes(config.prior(level), storage), None) for level in _levels(specs)
    ]


def _levels(specs: Mapping[str, GraphSpec]) -> list[int]:
    return sorted(spec.level for spec in specs.values() if spec.kind is GraphKind.STEP)


def _plan(
    specs: Mapping[str, GraphSpec], level: int, precision: Precision, weights: int, activations: int | None
) -> PriorMemory:
    step = specs[f"{GraphKind.STEP}_{level}"]
    caches = [tensor for tensor in step.states if tensor.in_place]
    others = [tensor for tensor in step.tensors if not tensor.in_place]
    (slots,) = (r for r in step.ranges if r.symbol == "B")
    return PriorMemory(
        level=level,
        precision=precision,
        weights=weights,
        caches_per_slot=sum(tensor.bytes({"B": 1}) for tensor in caches),
        window_per_slot=sum(_buffers(tensor) * tensor.bytes({"B": 1}) for tensor in others),
        activations=activations,
        most_slots=slots.maximum,
        one_window=sum(
            tensor.bytes({"B": 1})
            for kind in _OF_WINDOWS
            if (spec := specs.get(f"{kind}_{level}"))
            for tensor in spec.tensors
        ),
        fewest_slots=slots.minimum,
    )


def _buffers(tensor: TensorSpec) -> int:
    return 2 if tensor.role is Role.STATE else 1


def _graph_names(manifest: Manifest, level: int) -> list[str]:
    """The graphs that sampling with a prior keeps open."""
    return _present(manifest, level, (*_OF_SLOTS, *_OF_WINDOWS))


def _present(manifest: Manifest, level: int, kinds: Sequence[GraphKind]) -> list[str]:
    return [name for name in (f"{kind}_{level}" for kind in kinds) if name in manifest.graphs]


def _stored_weights(manifest: Manifest, level: int) -> int:
    """Bytes of the graphs' files; a file that several use counts once."""
    files = {name for graph in _graph_names(manifest, level) for name in manifest.graphs[graph].files}
    return sum(manifest.files[name].bytes for name in files)


def _hand_over(manifest: Manifest, level: int) -> int:
    """Bytes per slot between parts; step and prefill have buffers of their own."""
    entries = (manifest.graphs[graph] for graph in _graph_names(manifest, level))
    return sum(tensor.bytes({"B": 1}) for entry in entries for tensor in entry.between)


def _activations(manifest: Manifest, level: int) -> int | None:
    """Step and prefill run in turn, and in the same memory; the others have their own."""
    names = _graph_names(manifest, level)
    found = {name: manifest.graphs[name].options.get("activation_bytes") for name in names}
    known = {name: size for name, size in found.items() if type(size) is int}
    if not known or len(known) < len(found):
        return None
    in_turn = [known.pop(name) for name in _present(manifest, level, _OF_SLOTS)]
    return max(in_turn) + sum(known.values())
