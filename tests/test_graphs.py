"""The tables of cut graphs: what one part gives another takes, and together they are the graph."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jukebox_deploy.config_json import config_from_dict
from jukebox_deploy.contract import (
    DimensionRange,
    GraphKind,
    GraphRecord,
    GraphSpec,
    Role,
    TensorSpec,
    check_feeds,
    find_graph,
)
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.graph_cutting import cut_graph
from jukebox_deploy.graphs import GraphOptions, declare_graphs, declare_prior
from jukebox_deploy.presets import preset

KINDS = (GraphKind.STEP, GraphKind.PREFILL)


def cut(name: str, level: int, kind: GraphKind, parts: int) -> tuple[GraphSpec, tuple[GraphSpec, ...]]:
    config = preset(name)
    spec = find_graph(declare_graphs(config, GraphOptions(logits=True)), kind, level)
    return spec, cut_graph(spec, config.prior(level), parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "level", "parts"), [("tiny", 0, 2), ("tiny", 2, 3), ("1b_lyrics", 2, 5), ("5b_lyrics", 2, 4)]
)
class TestParts:
    def test_every_state_is_changed_once(self, name: str, level: int, kind: GraphKind, parts: int) -> None:
        spec, tables = cut(name, level, kind, parts)
        states = [state for table in tables for state in table.states]
        assert sorted(states, key=str) == sorted(spec.states, key=str)
        outputs = {t.name for table in tables for t in table.tensors if t.role is Role.OUTPUT}
        assert {t.name for t in spec.tensors if t.role is Role.OUTPUT} <= outputs

    def test_what_a_part_takes_is_there(self, name: str, level: int, kind: GraphKind, parts: int) -> None:
        spec, tables = cut(name, level, kind, parts)
        whole = {tensor.name: tensor for tensor in spec.tensors}
        given: dict[str, TensorSpec] = {}
        for table in tables:
            for tensor in table.inputs:
                source = whole.get(tensor.name) or given[tensor.name]
                assert (tensor.dtype, tensor.dims) == (source.dtype, source.dims)
            given |= {t.name: t for t in table.tensors if t.role is Role.OUTPUT}
        assert (
            given.keys() - whole.keys()
            == {t.name for table in tables for t in table.tensors if t.role is Role.INPUT} - whole.keys()
        )

    def test_only_the_last_part_changes_what_others_read(
        self, name: str, level: int, kind: GraphKind, parts: int
    ) -> None:
        _, tables = cut(name, level, kind, parts)
        assert [any(not s.in_place for s in table.states) for table in tables] == [False] * (parts - 1) + [True]

    def test_names_and_plain_data(self, name: str, level: int, kind: GraphKind, parts: int) -> None:
        spec, tables = cut(name, level, kind, parts)
        assert [table.name for table in tables] == [f"{spec.name}_part_{part}" for part in range(parts)]
        assert [config_from_dict(GraphRecord, table.to_json()).spec for table in tables] == list(tables)


def test_ranges_are_found_and_changed_by_symbol() -> None:
    spec = find_graph(declare_graphs(preset("tiny")), GraphKind.VQVAE_DECODE, 0)
    assert spec.range("T").minimum == 1
    assert spec.fixed_sizes == {"B": 1}
    changed = spec.with_range(DimensionRange("T", 5, 5, 5))
    assert changed.ranges == (spec.range("B"), DimensionRange("T", 5, 5, 5))
    assert changed.fixed_sizes == {"B": 1, "T": 5}
    with pytest.raises(EngineError, match=r"vqvae_decode_0 has no size Q; it has B and T\."):
        spec.range("Q")


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ({}, "vqvae_decode_0: missing inputs codes; expected are codes."),
        ({"codes": np.zeros((1, 2), np.int64), "a": np.zeros(1)}, "unknown inputs a; expected are codes."),
        ({"codes": np.zeros(2, np.int64)}, "input 'codes' has shape [2], expected [B, T]."),
    ],
)
def test_feeds_that_do_not_fit_are_named(feeds: dict[str, np.ndarray], told: str) -> None:
    spec = find_graph(declare_graphs(preset("tiny")), GraphKind.VQVAE_DECODE, 0)
    with pytest.raises(EngineError, match=re.escape(told)):
        check_feeds(spec, feeds)


def test_a_shape_is_told_with_the_sizes_that_are_known() -> None:
    ranges = (DimensionRange("B", 1, 4, 8),)
    tensors = (TensorSpec("a", "int64", ("B", 3), Role.INPUT), TensorSpec("b", "int64", ("B",), Role.INPUT))
    spec = GraphSpec(GraphKind.CONDITION, 0, tensors, ranges)
    told = "condition_0: input 'b' has shape [4], expected [B] with B=2."
    with pytest.raises(EngineError, match=re.escape(told)):
        check_feeds(spec, {"a": np.zeros((2, 3), np.int64), "b": np.zeros(4, np.int64)})


@pytest.mark.parametrize(
    ("name", "level", "kinds"),
    [
        ("tiny", 2, ["condition", "prefill", "step"]),
        ("5b_lyrics", 2, ["condition", "lyrics", "prefill", "step"]),
        ("small", 1, ["prefill", "step"]),
        ("small", 0, ["condition", "prefill", "step"]),
    ],
)
def test_a_prior_has_the_graphs_that_its_windows_need(name: str, level: int, kinds: list[str]) -> None:
    assert [str(spec.kind) for spec in declare_prior(preset(name).prior(level))] == kinds


def test_one_part_is_the_graph() -> None:
    spec, tables = cut("tiny", 2, GraphKind.STEP, 1)
    assert tables == (spec,)


@pytest.mark.parametrize("parts", [0, 17])
def test_parts_have_whole_layers(parts: int) -> None:
    with pytest.raises(ConfigError, match=f"step_2 has 16 layers, which cannot be cut into {parts} parts"):
        cut("tiny", 2, GraphKind.STEP, parts)


def test_other_graphs_are_not_cut() -> None:
    with pytest.raises(ConfigError, match="condition_2 is not a stack of layers"):
        cut("tiny", 2, GraphKind.CONDITION, 2)
