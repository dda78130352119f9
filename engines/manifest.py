"""What an engine bundle says of itself, as frozen dataclasses; `manifest_json` writes and reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, GraphSpec, LinearWeights, Precision, TensorSpec
from jukebox_deploy.errors import EngineError

FORMAT_VERSION = 4

SOURCE_GRAPHS, SOURCE_WEIGHTS = "onnx_sha256", "weights_sha256"
"""Under which an entry's options have the hashes of the files that its graph was made from."""

PIECE_BYTES = 64 * 2**20
"""Larger files are hashed in pieces of that size as well, so that several cores can check them when they are opened."""


class Target(StrEnum):
    """What the files of a bundle are made for."""

    ONNXRUNTIME = "onnxruntime"  # plain ONNX
    TENSORRT_RTX = "tensorrt-rtx"
    TENSORRT = "tensorrt"


@dataclass(frozen=True)
class FileRecord:
    """How a file of the bundle must be."""

    sha256: str  # hexadecimal
    bytes: int
    pieces: tuple[str, ...] = ()  # of a file larger than `PIECE_BYTES`: the SHA-256 of each piece, in order


@dataclass(frozen=True)
class GraphPart:
    """A graph of its own in a file of its own: one of the parts that run one after the other (`graphs.cut_graph`)."""

    spec: GraphSpec
    file: str


def tensors_between(whole: GraphSpec, parts: Iterable[GraphSpec]) -> tuple[TensorSpec, ...]:
    """What one part gives and a later one takes: it has no place in the table of the whole graph."""
    own = {tensor.name for tensor in whole.tensors}
    return tuple(tensor for part in parts for tensor in part.outputs if tensor.name not in own)


@dataclass(frozen=True)
class GraphEntry:
    """One graph: its table, its files (paths inside the bundle), and how they were made."""

    spec: GraphSpec
    file: str  # the `.onnx` or `.engine` file; empty for a graph in parts
    weights: tuple[str, ...] = ()  # files of external weights; graphs may share them
    compute_capabilities: tuple[str, ...] = ()  # "8.6"; empty: whatever the target supports
    options: Mapping[str, Any] = field(default_factory=dict)  # further facts, plain JSON data
    parts: tuple[GraphPart, ...] = ()  # of a graph that was cut, in the order in which they run

    @property
    def pieces(self) -> tuple[GraphPart, ...]:
        """What runs, one after the other: the parts, or the graph itself."""
        return self.parts or (GraphPart(self.spec, self.file),)

    @property
    def between(self) -> tuple[TensorSpec, ...]:
        """What its parts hand over to each other."""
        return tensors_between(self.spec, (part.spec for part in self.parts))

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the graph needs."""
        return (*(piece.file for piece in self.pieces), *self.weights)


@dataclass(frozen=True)
class Manifest:
    """Everything that is known of a bundle. `files` is filled in when the manifest is written."""

    target: Target
    precision: Precision
    config: JukeboxConfig
    checkpoint: str  # fingerprint of the checkpoint that the weights came from
    graphs: Mapping[str, GraphEntry]
    tools: Mapping[str, str]  # versions by package
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None  # report of the comparison with eager, plain JSON data
    vocabulary: Mapping[str, Any] = field(default_factory=dict)  # names of artists and genres, plain JSON data
    linear_weights: LinearWeights = LinearWeights.AS_PRECISION
    format_version: int = FORMAT_VERSION

    def source_facts(self, name: str) -> dict[str, Any]:
        """What the entry of an engine says of the exported graph of that name, and of all its files."""
        entry = self.graphs[name]
        return {
            SOURCE_GRAPHS: [self.files[piece.file].sha256 for piece in entry.pieces],
            SOURCE_WEIGHTS: [self.files[file].sha256 for file in entry.weights],
        }

    def is_source_of(self, name: str, made: GraphEntry) -> bool:
        """Whether a graph was made from the one of that name in this bundle, as far as it says what it was made of.

        Bundles that were built before weights were recorded say it of the graphs alone.
        """
        if self.target is not Target.ONNXRUNTIME or name not in self.graphs:
            return False
        facts = self.source_facts(name)
        said = {key: made.options[key] for key in facts if key in made.options}
        return SOURCE_GRAPHS in said and said == {key: facts[key] for key in said}

    def graph(self, kind: GraphKind, level: int) -> GraphEntry:
        """The graph of that kind and level; `EngineError` lists what there is."""
        name = f"{kind}_{level}"
        if name in self.graphs:
            return self.graphs[name]
        raise EngineError(f"the bundle has no graph {name!r}; it has {sorted(self.graphs)}. Export that graph too.")
