"""The manifest of an engine bundle, as frozen dataclasses; `manifest_json` writes and reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, LinearWeights, Precision, TensorSpec, find_graph

FORMAT_VERSION = 4

SOURCE_GRAPHS, SOURCE_WEIGHTS = "onnx_sha256", "weights_sha256"
"""Keys in the options of an entry: hashes of the ONNX files and of the weight files that it was built from."""

PIECE_BYTES = 64 * 2**20
"""Size of the pieces of larger files that are also hashed one by one, so that several cores can check a file."""


class Target(StrEnum):
    """The runtime that a bundle's files are for."""

    ONNXRUNTIME = "onnxruntime"  # plain ONNX
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"


@dataclass(frozen=True)
class FileRecord:
    """The expected size and hashes of a file of the bundle."""

    sha256: str  # hexadecimal
    bytes: int
    pieces: tuple[str, ...] = ()  # of a file larger than `PIECE_BYTES`: the SHA-256 of each piece, in order


@dataclass(frozen=True)
class GraphPart:
    """One part of a cut graph (`graph_cutting.cut_graph`), which is a graph in its own file."""

    spec: GraphSpec
    file: str


def tensors_between(whole: GraphSpec, parts: Iterable[GraphSpec]) -> tuple[TensorSpec, ...]:
    """Return the tensors that one part outputs and a later part reads, which the whole graph does not declare."""
    own = {tensor.name for tensor in whole.tensors}
    return tuple(tensor for part in parts for tensor in part.outputs if tensor.name not in own)


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its declaration, its files (paths inside the bundle), and how it was exported or built."""

    spec: GraphSpec
    file: str  # the `.onnx` or `.engine` file; empty for a cut graph
    weights: tuple[str, ...] = ()  # files of external weights; graphs may share them
    compute_capabilities: tuple[str, ...] = ()  # such as "8.6"; empty: all that the target supports
    options: Mapping[str, Any] = field(default_factory=dict)  # further facts, plain JSON data
    parts: tuple[GraphPart, ...] = ()  # the parts of a cut graph, in the order in which they run

    @property
    def pieces(self) -> tuple[GraphPart, ...]:
        """The graphs that run one after the other: the parts of a cut graph, otherwise the graph itself."""
        return self.parts or (GraphPart(self.spec, self.file),)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the graph needs."""
        return (*(piece.file for piece in self.pieces), *self.weights)


@dataclass(frozen=True)
class Manifest:
    """The contents of a manifest. `files` is filled in when the manifest is written."""

    target: Target
    precision: Precision
    config: JukeboxConfig
    checkpoint: str  # fingerprint of the checkpoint that the weights come from
    graphs: Mapping[str, GraphEntry]
    tools: Mapping[str, str]  # versions by package
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None  # report of the comparison with PyTorch, plain JSON data
    vocabulary: Mapping[str, Any] = field(default_factory=dict)  # names of artists and genres, plain JSON data
    linear_weights: LinearWeights = LinearWeights.AS_PRECISION
    sampling: Mapping[str, Any] | None = None  # recommended sampling settings of the model, plain JSON data
    format_version: int = FORMAT_VERSION

    def source_facts(self, name: str) -> dict[str, Any]:
        """Return the options with which the entry of a built graph identifies this bundle's graph as its source."""
        entry = self.graphs[name]
        return {
            SOURCE_GRAPHS: [self.files[piece.file].sha256 for piece in entry.pieces],
            SOURCE_WEIGHTS: [self.files[file].sha256 for file in entry.weights],
        }

    def is_source_of(self, name: str, made: GraphEntry) -> bool:
        """Return whether `made` was built from this bundle's graph of that name, judging by the hashes in its options.

        Entries from before weights were recorded have only the hashes of the ONNX files.
        """
        if self.target is not Target.ONNXRUNTIME or name not in self.graphs:
            return False
        facts = self.source_facts(name)
        said = {key: made.options[key] for key in facts if key in made.options}
        return SOURCE_GRAPHS in said and said == {key: facts[key] for key in said}

    def bytes_of(self, names: Iterable[str]) -> int:
        """Return the total bytes of these files; a file that is named twice counts twice."""
        return sum(self.files[name].bytes for name in names)

    def graph(self, kind: GraphKind, level: int) -> GraphEntry:
        """Return the entry of the graph of a kind and level. Raises `EngineError`, which lists all graphs."""
        return find_graph(self.graphs, kind, level)
