"""Memory that sampling with a prior takes, and the number of slots that fit.

The numbers are derived from the declarations of the graphs, so they are those that sessions allocate: caches once,
other states twice (they are double-buffered), everything else once, and the tensors between the parts of a cut graph.
The graphs that compute the conditioning of a window also stay open, and process one window at a time. Every graph has
its own copy of its weights in memory, also where files share them on disk. The graphs of the VQ-VAE are open before and
after those of priors, so they have totals of their own.

What CUDA takes on a GPU (its context and the code of kernels) is not counted: it depends on the driver and the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import (
    VQVAE_GRAPHS,
    GraphKind,
    GraphSpec,
    Precision,
    Role,
    TensorSpec,
    find_graph,
    graph_levels,
)
from jukebox_deploy.costs import WeightStorage, prefill_weight_bytes, weight_bytes
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import GraphEntry, Manifest, Target, tensors_between
from jukebox_deploy.engines.onnxruntime.sessions import GraphFile
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.quantities import byte_size


@dataclass(frozen=True)
class PriorMemory:
    """Bytes that sampling with one prior takes."""

    level: int
    precision: Precision
    weights: int
    caches_per_slot: int
    window_per_slot: int  # codes, conditioning rows, lyric keys and values, random numbers, settings
    activations: int | None  # working memory of the engines at their largest shapes; `None` if not recorded
    most_slots: int  # largest number of slots that the step accepts
    hand_over_per_slot: int = 0  # tensors between the parts of step and prefill
    one_window: int = 0  # inputs and outputs of the graphs that compute the conditioning of a window
    fewest_slots: int = 1  # smallest number of slots that the step accepts

    @property
    def per_slot(self) -> int:
        """Bytes that each slot takes."""
        return self.caches_per_slot + self.window_per_slot + self.hand_over_per_slot

    @property
    def slot_counts(self) -> tuple[int, ...]:
        """The fewest slots, the powers of two above, and the most slots."""
        powers = (2**exponent for exponent in range(self.most_slots.bit_length()))
        between = (number for number in powers if self.fewest_slots < number < self.most_slots)
        return tuple(sorted({self.fewest_slots, *between, self.most_slots}))

    def total(self, slots: int) -> int:
        """Return the bytes for a number of slots; activations are left out if they are not known."""
        return self.weights + (self.activations or 0) + self.one_window + slots * self.per_slot

    def slots_within(self, memory: int) -> int:
        """Return the largest number of slots that fit into that many bytes; 0 if not even the fewest fit."""
        room = min((memory - self.total(0)) // self.per_slot, self.most_slots)
        return room if room >= self.fewest_slots else 0


def what_fits(plan: PriorMemory, slots: int, free: int) -> str:
    """Say how many slots would fit into `free` bytes, given that `slots` of them did not."""
    known = plan.activations is not None
    fitting = min(plan.slots_within(free), slots - 1)  # whatever the plan says
    if fitting >= plan.fewest_slots:
        number = f"{fitting}" if known else f"at most {fitting}"
        advice = f"Ask for fewer slots: {number} would fit."
    elif plan.fewest_slots == 1:
        advice = "Not even one slot fits."
    else:
        advice = f"The engines take at least {plan.fewest_slots} slots, which do not fit; build them for fewer."
    return (
        f"Level {plan.level} with {slots} slots takes {'about' if known else 'at least'} "
        f"{byte_size(plan.total(slots))}, and {byte_size(free)} were free. {advice}"
    )


@dataclass(frozen=True)
class VQVAEMemory:
    """Bytes that a graph of the VQ-VAE takes, besides the audio and the codes of one chunk."""

    graph: str
    weights: int
    activations: int | None  # working memory of the engine at its largest shapes; `None` if not recorded

    @property
    def total(self) -> int:
        """All bytes; activations are left out if they are not known."""
        return self.weights + (self.activations or 0)


def plan_vqvae(bundle: EngineBundle) -> list[VQVAEMemory]:
    """Plan the memory of the graphs of the VQ-VAE in an engine bundle, each by itself.

    Raises `EngineError` for an ONNX file that cannot be read.
    """
    return [
        VQVAEMemory(entry.spec.name, _loaded_weights(bundle, [entry]), _activations([entry]))
        for entry in bundle.manifest.graphs.values()
        if entry.spec.kind in VQVAE_GRAPHS
    ]


def plan_bundle(bundle: EngineBundle) -> list[PriorMemory]:
    """Plan the memory of the priors of an engine bundle, level 0 first, with the weights that its graphs load.

    Raises `EngineError` for an ONNX file that cannot be read.
    """
    manifest = bundle.manifest
    specs = {name: entry.spec for name, entry in manifest.graphs.items()}
    return [
        plan_prior(
            specs, level, manifest.precision, _loaded_weights(bundle, opened), _activations(opened), bundle.parts
        )
        for level in graph_levels(specs, GraphKind.STEP)
        for opened in [_opened(manifest, level)]
    ]


def plan_config(config: JukeboxConfig, precision: Precision) -> list[PriorMemory]:
    """Plan the memory of a model's priors as they would be exported; step and prefill each load their weights."""
    specs = declare_graphs(config, GraphOptions(precision=precision))
    storage = WeightStorage.SINGLE if precision is Precision.FP32 else WeightStorage.HALF_LINEAR
    return [
        plan_prior(specs, level, precision, weight_bytes(prior, storage) + prefill_weight_bytes(prior, storage))
        for level in graph_levels(specs, GraphKind.STEP)
        for prior in [config.prior(level)]
    ]


def plan_prior(
    specs: Mapping[str, GraphSpec],
    level: int,
    precision: Precision,
    weights: int,
    activations: int | None = None,
    parts: Mapping[str, Sequence[GraphSpec]] = MappingProxyType({}),
) -> PriorMemory:
    """Plan the memory of a prior from the declarations of its graphs.

    `weights`: bytes of the weights of all these graphs. `activations`: see `PriorMemory`. `parts`: the declarations of
    the parts of each cut graph, by its name.
    """
    step = find_graph(specs, GraphKind.STEP, level)
    slots = step.range("B")
    caches = [tensor for tensor in step.states if tensor.in_place]
    others = [tensor for tensor in step.tensors if not tensor.in_place]
    return PriorMemory(
        level=level,
        precision=precision,
        weights=weights,
        caches_per_slot=sum(tensor.bytes({"B": 1}) for tensor in caches),
        window_per_slot=sum(_buffers(tensor) * tensor.bytes({"B": 1}) for tensor in others),
        activations=activations,
        most_slots=slots.maximum,
        hand_over_per_slot=sum(tensor.bytes({"B": 1}) for tensor in _handed_over(specs, level, parts)),
        one_window=sum(
            tensor.bytes({"B": 1})
            for spec in specs.values()
            if spec.model_level == level and not spec.states
            for tensor in spec.tensors
        ),
        fewest_slots=slots.minimum,
    )


def _buffers(tensor: TensorSpec) -> int:
    return 2 if tensor.role is Role.STATE else 1


def _opened(manifest: Manifest, level: int) -> list[GraphEntry]:
    """Return the graphs that are open while sampling with a prior, which are all graphs of the prior."""
    return [entry for entry in manifest.graphs.values() if entry.spec.model_level == level]


def _loaded_weights(bundle: EngineBundle, opened: Sequence[GraphEntry]) -> int:
    """Return the bytes of the files of graphs, and of the weights that each ONNX graph loads from other files."""
    pieces = [piece for entry in opened for piece in entry.pieces]
    own = bundle.manifest.bytes_of(piece.file for piece in pieces)
    if bundle.manifest.target is not Target.ONNXRUNTIME:  # engines contain their weights
        return own
    return own + sum(GraphFile.read(piece.spec, bundle.folder / piece.file).weight_bytes for piece in pieces)


def _handed_over(
    specs: Mapping[str, GraphSpec], level: int, parts: Mapping[str, Sequence[GraphSpec]]
) -> list[TensorSpec]:
    """Return the tensors between the parts of a prior's graphs; step and prefill have separate buffers for these."""
    cut = [spec for name, spec in specs.items() if spec.model_level == level and name in parts]
    return [tensor for spec in cut for tensor in tensors_between(spec, parts[spec.name])]


def _activations(opened: Sequence[GraphEntry]) -> int | None:
    """Return the bytes of working memory: step and prefill use the same memory in turn, all other graphs their own."""
    in_turn: list[int] = []
    others: list[int] = []
    for entry in opened:
        size = entry.options.get("activation_bytes")
        if type(size) is not int:
            return None
        (in_turn if entry.spec.states else others).append(size)
    return max(in_turn, default=0) + sum(others)
