"""The functions that become graphs; their arguments and results are tensors in the order of the graph's declaration.

They only map names to the tensors of a model; all arithmetic is in the models. The eager engine runs the same modules.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from jukebox_deploy.contract import GraphKind, GraphSpec
from jukebox_deploy.models.cached_attention import KeyValue
from jukebox_deploy.models.prior import Choice, Prior, Window
from jukebox_deploy.models.vqvae import VQVAE

Named = dict[str, Tensor]
"""Tensors by their declared names, without `past_` or `present_`."""


class GraphModule(nn.Module):
    """A function of named tensors, which is called with tensors in the declared order. `model` has the weights."""

    model: nn.Module

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """Compute the graph: inputs and states by name -> outputs and states by name."""
        raise NotImplementedError

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Compute the graph: inputs in the order of `spec.inputs` -> outputs in the order of `spec.outputs`."""
        named = dict(zip((t.name for t in self.spec.inputs), tensors, strict=True))
        results = self.compute(named)
        return tuple(results[t.name] for t in self.spec.outputs)


class VqvaeEncodeGraph(GraphModule):
    """Audio -> codes."""

    model: VQVAE

    def __init__(self, spec: GraphSpec, vqvae: VQVAE) -> None:
        super().__init__(spec)
        self.model = vqvae

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_vqvae_encode`."""
        return {"codes": self.model.encode(tensors["audio"], self.spec.level)}


class VqvaeDecodeGraph(GraphModule):
    """Codes -> audio."""

    model: VQVAE

    def __init__(self, spec: GraphSpec, vqvae: VQVAE) -> None:
        super().__init__(spec)
        self.model = vqvae

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_vqvae_decode`."""
        return {"audio": self.model.decode(tensors["codes"], self.spec.level)}


class PriorGraph(GraphModule):
    """A graph of a prior."""

    model: Prior

    def __init__(self, spec: GraphSpec, prior: Prior) -> None:
        super().__init__(spec)
        self.model = prior


class ConditionGraph(PriorGraph):
    """Labels, timing bins, upper codes -> start row and conditioning rows."""

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_condition`."""
        labels = {name: tensor for name, tensor in tensors.items() if name != "upper_codes"}
        start, conditioning = self.model.condition(labels, tensors.get("upper_codes"))
        results = {"start": start, "conditioning": conditioning}
        return {name: tensor for name, tensor in results.items() if tensor is not None}


class LyricsGraph(PriorGraph):
    """Lyric tokens -> keys and values of the cross layers."""

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_lyrics`."""
        return _named_caches("cross_key", "cross_value", self.model.encode_lyrics(tensors["lyric_tokens"]))


def _named_caches(key: str, value: str, caches: Mapping[int, KeyValue]) -> Named:
    named = {f"{key}_{layer}": cache.key for layer, cache in caches.items()}
    return named | {f"{value}_{layer}": cache.value for layer, cache in caches.items()}


def _gather_caches(key: str, value: str, tensors: Named) -> dict[int, KeyValue]:
    layers = [int(name.removeprefix(f"{key}_")) for name in tensors if name.startswith(f"{key}_")]
    return {layer: KeyValue(tensors[f"{key}_{layer}"], tensors[f"{value}_{layer}"]) for layer in layers}


class WindowGraph(PriorGraph):
    """A graph that works on the windows of the slots."""

    def window(self, tensors: Named) -> Window:
        """Make a window of named tensors, with those caches that are among them."""
        return Window(
            codes=tensors["codes"],
            position=tensors["position"],
            known_end=tensors["known_end"],
            start=tensors.get("start"),
            conditioning=tensors.get("conditioning"),
            caches=_gather_caches("key", "value", tensors),
            lyrics=_gather_caches("cross_key", "cross_value", tensors),
        )


class PrefillGraph(WindowGraph):
    """One block of known codes -> filled caches."""

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_prefill`."""
        position, caches = self.model.prefill(self.window(tensors))
        return {"position": position} | _named_caches("key", "value", caches)


class StepGraph(WindowGraph):
    """One code for every slot."""

    def compute(self, tensors: Named) -> Mapping[str, Tensor]:
        """See `declare_step`."""
        choice = Choice(**{name: tensors[name] for name in Choice._fields})
        result = self.model.step(self.window(tensors), choice)
        named = {name: getattr(result, name) for name in ("codes", "position", "not_finite", "logits")}
        return named | _named_caches("key", "value", result.caches)


_VQVAE_GRAPHS = {GraphKind.VQVAE_ENCODE: VqvaeEncodeGraph, GraphKind.VQVAE_DECODE: VqvaeDecodeGraph}
_PRIOR_GRAPHS: dict[GraphKind, type[PriorGraph]] = {
    GraphKind.CONDITION: ConditionGraph,
    GraphKind.LYRICS: LyricsGraph,
    GraphKind.PREFILL: PrefillGraph,
    GraphKind.STEP: StepGraph,
}


def graph_module(spec: GraphSpec, model: VQVAE | Prior) -> GraphModule:
    """Return the function of a graph, given its model (the VQ-VAE, or the prior of its level)."""
    module: GraphModule
    if isinstance(model, VQVAE):
        module = _VQVAE_GRAPHS[spec.kind](spec, model)
    else:
        module = _PRIOR_GRAPHS[spec.kind](spec, model)
    return module.eval().requires_grad_(False)
