"""The manifest: what is written comes back, and nothing that was not written does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines import manifest as manifest_module
from jukebox_deploy.engines.manifest import FileRecord, GraphEntry, Manifest, manifest_from_json, manifest_to_json
from jukebox_deploy.errors import EngineError
from tests.engines.handmade_graphs import cache_spec, decode_spec, make_manifest


def example() -> Manifest:
    """Two graphs that share a file of weights."""
    entries = [
        GraphEntry(cache_spec(), "step_0.onnx", ("shared.weights",), ("8.6",), {"keep": ["layer 3"]}),
        GraphEntry(decode_spec(), "decoders/vqvae_decode_0.onnx", ("shared.weights",)),
    ]
    files = {name: FileRecord("ab" * 32, 7) for entry in entries for name in entry.files}
    return replace(make_manifest(entries), files=files, parity={"step_0": {"largest": 1e-6}})


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """The data with a right checksum, as someone who means harm would write it."""
    body = {key: value for key, value in data.items() if key != "checksum"}
    return {**body, "checksum": manifest_module._checksum(body)}


def test_what_is_written_comes_back() -> None:
    text = json.dumps(manifest_to_json(example()))
    assert manifest_from_json(json.loads(text)) == example()


def test_graphs_are_found_by_kind_and_level() -> None:
    assert example().graph(GraphKind.STEP, 0).file == "step_0.onnx"
    with pytest.raises(EngineError, match="no graph 'step_1'; it has \\['step_0', 'vqvae_decode_0'\\]"):
        example().graph(GraphKind.STEP, 1)


def test_a_changed_manifest_is_noticed() -> None:
    data = json.loads(json.dumps(manifest_to_json(example())))
    data["graphs"]["step_0"]["table"]["ranges"]["B"][2] = 17
    with pytest.raises(EngineError, match="checksum does not match"):
        manifest_from_json(data)


@pytest.mark.parametrize("data", [None, [], "manifest", 3, {}])
def test_other_json_is_no_manifest(data: Any) -> None:
    with pytest.raises(EngineError):
        manifest_from_json(data)


def assign(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


STEP = ("graphs", "step_0")
TABLE = (*STEP, "table")
HOSTILE: list[tuple[Callable[[Any], None], str]] = [
    (assign("format_version", value=1), "format version 1, this program reads 2"),
    (assign("format_version", value="1"), "format version '1'"),
    (assign("surprise", value=1), "unknown or missing keys \\['surprise'\\]"),
    (lambda data: data.pop("tools"), "unknown or missing keys \\['tools'\\]"),
    (assign("target", value="abacus"), "'abacus' is not a valid Target"),
    (assign("precision", value="fp12"), "'fp12' is not a valid Precision"),
    (assign("linear_weights", value="int5"), "'int5' is not a valid LinearWeights"),
    (assign("config", "name", value=5), "expected str, found 5"),
    (assign("config", "extra", value=5), "unknown keys \\['extra'\\]"),
    (assign("checkpoint", value=None), "checkpoint: expected a text"),
    (assign("tools", "onnx", value=1), "tools.onnx: expected a text"),
    (assign("parity", value=[]), "parity: expected an object"),
    (assign("graphs", value=[]), "graphs: expected an object"),
    (assign(*STEP, value=None), "graph 'step_0' of the manifest: expected an object"),
    (assign(*STEP, "weights", value="shared.weights"), "expected a list"),
    (assign(*STEP, "extra", value=1), "unknown or missing keys \\['extra'\\]"),
    (assign(*STEP, "compute_capabilities", value=[8.6]), "expected a text, found 8.6"),
    (assign(*TABLE, "level", value=1), "has the table of 'step_1'"),
    (assign(*TABLE, "kind", value="stride"), "table of a graph is not readable"),
    (assign(*TABLE, "extra", value=1), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "dtype", value="complex64"), "unknown dtypes"),
    (assign(*TABLE, "tensors", 0, "dtype", value=["int64"]), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "name", value=7), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "dims", value=["Q"]), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "dims", value=[-1]), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "dims", value=["x*B"]), "table that is not sound"),
    (assign(*TABLE, "tensors", 0, "dims", value=[2.0]), "table that is not sound"),
    (assign(*TABLE, "ranges", "B", value=[4, 1, 16]), "table that is not sound"),
    (assign(*TABLE, "ranges", "B", value=[1, 4]), "table of a graph is not readable"),
    (assign("files", "step_0.onnx", "bytes", value=-1), "no readable size and hash"),
    (assign("files", "step_0.onnx", "bytes", value=True), "no readable size and hash"),
    (assign("files", "step_0.onnx", "sha256", value="AB" * 32), "no readable size and hash"),
    (assign("files", "step_0.onnx", "extra", value=1), "unknown or missing keys \\['extra'\\]"),
    (lambda data: data["files"].pop("shared.weights"), "disagree on \\['shared.weights'\\]"),
    (assign("files", "stray.bin", value={"sha256": "ab" * 32, "bytes": 1}), "disagree on \\['stray.bin'\\]"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_each_odd_manifest_is_refused_with_a_sentence(change: Callable[[Any], None], message: str) -> None:
    data = json.loads(json.dumps(manifest_to_json(example())))
    change(data)
    with pytest.raises(EngineError, match=message):
        manifest_from_json(sealed(data))


@pytest.mark.parametrize(
    "path",
    [
        "../step_0.onnx",
        "/etc/passwd",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "",
        ".",
        "..",
        ".hidden",
        "C:\\step.onnx",
        "a\\b",
        "C:step.onnx",
        "step\n.onnx",
        "step_0.onnx\n",
        "step\0.onnx",
        "ü.onnx",
        "a" * 201,
        None,
        ["step_0.onnx"],
    ],
)
@pytest.mark.parametrize("field", ["file", "weights"])
def test_paths_stay_inside_the_bundle(field: str, path: Any) -> None:
    data = json.loads(json.dumps(manifest_to_json(example())))
    data["graphs"]["step_0"][field] = [path] if field == "weights" else path
    with pytest.raises(EngineError, match="no plain path inside the bundle"):
        manifest_from_json(sealed(data))


def test_a_value_that_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(EngineError, match="value that JSON cannot"):
        manifest_to_json(replace(example(), parity={"largest": float("nan")}))
