import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from jukebox_deploy.attention_patterns import AttentionOrder
from jukebox_deploy.contract import GraphKind, Precision
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.export.feeds import random_feeds
from jukebox_deploy.export.graph_calls import GraphCalls, cut_calls, graph_calls
from jukebox_deploy.export.graph_modules import graph_module
from jukebox_deploy.export.parallel import TraceRequest, _structure, trace_all
from jukebox_deploy.graph_cutting import cut_graph
from jukebox_deploy.graphs import GraphOptions, declare_graphs
from jukebox_deploy.models.builders import build_prior
from jukebox_deploy.models.prior import Prior
from jukebox_deploy.models.transformer import Layer
from jukebox_deploy.presets import preset
from tests.export.small_models import randomise, separate_lyrics_config, unlabelled_config

SAMPLED = [order for order in AttentionOrder if "summary" not in order]


def _run(graph: GraphCalls, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors = dict(inputs)
    for call in graph.calls:
        results = graph.modules[call.module](*(tensors[name] for name in call.inputs))
        tensors |= dict(zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    return tensors


def _equal_weights_per_pattern(model: Prior) -> None:
    first: dict[str, Layer] = {}
    for layer in model.core.transformer.typed_layers():
        layer.load_state_dict(first.setdefault(layer.attention.pattern, layer).state_dict())


@pytest.mark.parametrize("kind", [GraphKind.STEP, GraphKind.PREFILL])
@pytest.mark.parametrize("order", SAMPLED)
def test_the_calls_together_are_the_graph(order: AttentionOrder, kind: GraphKind):
    config = unlabelled_config(order, depth=19)  # the first cross layer of "factored_late_cross" is the last one
    model = build_prior(config.priors[0])
    randomise(model)
    _equal_weights_per_pattern(model)  # a module has the weights of its first call
    spec = declare_graphs(config, GraphOptions(logits=True))[f"{kind}_0"]
    module = graph_module(spec, model)
    feeds = random_feeds(spec, config, {"B": 3}, seed=1)
    expected = module(*(torch.from_numpy(feeds[t.input_name].copy()) for t in spec.inputs))
    found = _run(graph_calls(module), {name: torch.from_numpy(array.copy()) for name, array in feeds.items()})
    for tensor, value in zip(spec.outputs, expected, strict=True):
        torch.testing.assert_close(found[tensor.output_name], value, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [GraphKind.STEP, GraphKind.PREFILL])
@pytest.mark.parametrize("order", SAMPLED)
def test_the_calls_of_all_parts_are_those_of_the_graph(order: AttentionOrder, kind: GraphKind):
    config = unlabelled_config(order, depth=19)
    spec = declare_graphs(config)[f"{kind}_0"]
    graph = graph_calls(graph_module(spec, build_prior(config.priors[0])))
    parts = cut_graph(spec, config.priors[0], 4)
    cut = [cut_calls(spec, graph.calls, part) for part in parts]
    layers = [call.scope for calls in cut for call in calls if call.scope]
    assert layers == [call.scope for call in cut_calls(spec, graph.calls, spec) if call.scope]
    for part, calls in zip(parts, cut, strict=True):
        known = {tensor.input_name for tensor in part.inputs}
        for call in calls:
            assert known.issuperset(call.inputs)
            known |= set(call.outputs)
        assert known.issuperset(tensor.output_name for tensor in part.outputs)


def test_a_deep_stack_has_few_modules():
    config = preset("1b_lyrics")
    spec = declare_graphs(config)["step_2"]
    with torch.device("meta"):
        graph = graph_calls(graph_module(spec, build_prior(config.prior(2))))
    assert set(graph.modules) == {"locate", "entry", "block", "column", "previous_block", "prime", "dense", "exit"}
    assert len(graph.calls) == 72 + 3


def test_like_upsamplers_share_their_traces():
    config = preset("1b_lyrics")
    graphs = declare_graphs(config)
    request = TraceRequest(config, list(graphs.values()), Precision.FP32)
    assert _structure(request, graphs["step_0"]) == _structure(request, graphs["step_1"])
    assert _structure(request, graphs["step_0"]) != _structure(request, graphs["step_2"])
    assert _structure(request, graphs["step_0"]) != _structure(request, graphs["prefill_0"])
    # The conditioners differ in their residual scale.
    assert _structure(request, graphs["condition_0"]) != _structure(request, graphs["condition_1"])
    half = declare_graphs(config, GraphOptions(slots=(1, 1, 1)))
    assert _structure(request, graphs["step_0"]) != _structure(request, half["step_0"])
    cut = replace(request, parts={0: 2})
    assert _structure(cut, graphs["step_0"]) != _structure(cut, graphs["step_1"])
    cut = replace(request, parts={0: 2, 1: 2})
    assert _structure(cut, graphs["step_0"]) == _structure(cut, graphs["step_1"])


def test_feeds_are_valid_and_repeatable():
    config = separate_lyrics_config()
    for spec in declare_graphs(config).values():
        sizes = {"B": 2, "T": 5} if spec.model_level is None else {"B": 2}
        feeds = random_feeds(spec, config, sizes, seed=3)
        again = random_feeds(spec, config, sizes, seed=3)
        for tensor in spec.inputs:
            array = feeds[tensor.input_name]
            assert array.shape == tensor.shape(sizes)
            np.testing.assert_array_equal(array, again[tensor.input_name])


def _die(*arguments: object) -> bytes:
    os._exit(1)


def test_a_tracing_process_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jukebox_deploy.export.parallel._trace_to_bytes", _die)
    config = unlabelled_config()
    specs = list(declare_graphs(config).values())
    with pytest.raises(JukeboxError, match=r"if __name__ == .*--processes 1"):
        list(trace_all(TraceRequest(config, specs, Precision.FP32), processes=2))
