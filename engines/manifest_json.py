"""Conversion of a manifest to the plain data of `manifest.json` and back.

The records below define the keys of the file. Reading is strict (`config_json`): unknown keys, other format versions,
and invalid sizes, hashes and paths are errors. A checksum over the whole manifest detects changes after it was written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.contract import (
    ITEM_BYTES,
    Dimension,
    GraphRecord,
    GraphSpec,
    LinearWeights,
    Precision,
    dimension_symbol,
)
from jukebox_deploy.engines.manifest import (
    FORMAT_VERSION,
    PIECE_BYTES,
    FileRecord,
    GraphEntry,
    GraphPart,
    Manifest,
    Target,
)
from jukebox_deploy.errors import ConfigError, EngineError
from jukebox_deploy.graph_cutting import cut_graph
from jukebox_deploy.listing import words_of

_AGAIN = "Export or build the bundle again."
# No absolute paths, no "..", no hidden files, and no characters that other operating systems interpret differently.
_FILE_NAME = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SYMBOL = re.compile(r"[A-Za-z]\w*", re.ASCII)
_MOST = 2**31 - 1  # largest size of an axis


@dataclass(frozen=True)
class _PartRecord:
    """A `GraphPart` in the manifest."""

    table: GraphRecord
    file: str


@dataclass(frozen=True)
class _EntryRecord:
    """A `GraphEntry` in the manifest."""

    table: GraphRecord
    file: str | None  # None for a cut graph
    weights: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    options: Mapping[str, Any]
    parts: tuple[_PartRecord, ...]

    @classmethod
    def of(cls, entry: GraphEntry) -> Self:
        return cls(
            table=entry.spec.record,
            file=entry.file or None,
            weights=entry.weights,
            compute_capabilities=entry.compute_capabilities,
            options=entry.options,
            parts=tuple(_PartRecord(part.spec.record, part.file) for part in entry.parts),
        )

    def entry(self, name: str) -> GraphEntry:
        """Return the entry. Raises `EngineError` if it is not a valid entry of a graph of that name."""
        where, spec = f"graph {name!r} of the manifest", self.table.spec
        if spec.name != name:
            raise EngineError(f"{where} has the table of {spec.name!r}. {_AGAIN}")
        if (self.file is None) != bool(self.parts):
            raise EngineError(f"{where} needs either one file or parts, and has neither or both. {_AGAIN}")
        parts = tuple(GraphPart(part.table.spec, part.file) for part in self.parts)
        for table in (spec, *(part.spec for part in parts)):
            _require_sound(where, table)
        return GraphEntry(spec, self.file or "", self.weights, self.compute_capabilities, self.options, parts)


@dataclass(frozen=True)
class _ManifestRecord:
    """A `Manifest` in the file, without the checksum."""

    format_version: int
    target: Target
    precision: Precision
    linear_weights: LinearWeights
    config: JukeboxConfig
    checkpoint: str
    graphs: Mapping[str, _EntryRecord]
    tools: Mapping[str, str]
    files: Mapping[str, FileRecord]
    parity: Mapping[str, Any] | None
    vocabulary: Mapping[str, Any]
    sampling: Mapping[str, Any] | None = None  # missing in bundles from before this key existed


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Convert a manifest to plain data with a checksum. Raises `EngineError` for a value that JSON cannot represent."""
    graphs = {name: _EntryRecord.of(entry) for name, entry in manifest.graphs.items()}
    with _explaining_json_errors():
        data = config_to_dict(_ManifestRecord(**{**vars(manifest), "graphs": graphs}))
    return {**data, "checksum": _checksum(data)}


def _checksum(data: Mapping[str, Any]) -> str:
    with _explaining_json_errors():
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _explaining_json_errors() -> Iterator[None]:
    """Raise `EngineError` for numbers that JSON lacks (such as NaN) and for nesting that is too deep or circular."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the manifest holds a value that JSON cannot represent: {error}.") from error


def manifest_from_json(data: Any) -> Manifest:
    """Convert plain data to a manifest. Raises `EngineError` for the first fault."""
    if not isinstance(data, dict):
        raise EngineError(f"the manifest is not an object but {type(data).__name__}. {_AGAIN}")
    if (version := data.get("format_version")) != FORMAT_VERSION:
        raise EngineError(f"the bundle has format version {version!r}, this program reads {FORMAT_VERSION}. {_AGAIN}")
    body = {key: value for key, value in data.items() if key != "checksum"}
    if data.get("checksum") != _checksum(body):
        raise EngineError(f"the manifest was changed since it was written: its checksum does not match. {_AGAIN}")
    try:
        record = config_from_dict(_ManifestRecord, body, "manifest")
    except ConfigError as error:
        raise EngineError(f"the manifest is not readable: {error} {_AGAIN}") from error
    graphs = {name: entry.entry(name) for name, entry in record.graphs.items()}
    manifest = Manifest(**{**vars(record), "graphs": graphs})
    _require_files(manifest)
    _require_cut(manifest)
    return manifest


def _require_sound(where: str, spec: GraphSpec) -> None:
    """Check that all dtypes are known, all sizes are valid, and every symbol has a range."""
    for r in spec.ranges:
        if not 0 < r.minimum <= r.optimum <= r.maximum <= _MOST:
            found = f"{r.minimum}, {r.optimum}, {r.maximum}"
            raise EngineError(f"{where}: the range of {r.symbol!r} is invalid: {found}. {_AGAIN}")
    symbols = {r.symbol for r in spec.ranges}
    for tensor in spec.tensors:
        if tensor.dtype not in ITEM_BYTES:
            raise EngineError(f"{where}: {tensor.name!r} has the unknown dtype {tensor.dtype!r}. {_AGAIN}")
        if odd := [dimension for dimension in tensor.dims if not _is_sound(dimension, symbols)]:
            raise EngineError(f"{where}: {tensor.name!r} has the invalid dimension {odd[0]!r}. {_AGAIN}")


def _is_sound(dimension: Dimension, symbols: set[str]) -> bool:
    try:
        symbol, factor = dimension_symbol(dimension)
    except ValueError:
        return False
    return 0 < factor <= _MOST and (symbol is None or (symbol in symbols and _SYMBOL.fullmatch(symbol) is not None))


def _require_files(manifest: Manifest) -> None:
    """Check that all paths stay inside the bundle, and that exactly the files that graphs name have hashes."""
    needed = {name for entry in manifest.graphs.values() for name in entry.files}
    for name in sorted(needed | set(manifest.files)):
        if len(name) > 200 or not _FILE_NAME.fullmatch(name):
            raise EngineError(
                f"the manifest names the file {name!r}, which is not a plain path inside the bundle. {_AGAIN}"
            )
    if odd := sorted(needed ^ set(manifest.files)):
        raise EngineError(f"the manifest's graphs and its list of files disagree on {words_of(odd)}. {_AGAIN}")
    for name, record in manifest.files.items():
        _require_hashes(f"file {name!r} of the manifest", record)


def _require_hashes(where: str, record: FileRecord) -> None:
    if record.bytes < 0 or not _SHA256.fullmatch(record.sha256):
        raise EngineError(f"{where} has no readable size and hash. {_AGAIN}")
    expected = -(-record.bytes // PIECE_BYTES) if record.bytes > PIECE_BYTES else 0
    if len(record.pieces) != expected or not all(map(_SHA256.fullmatch, record.pieces)):
        raise EngineError(f"{where} does not have the expected valid hashes of {expected} pieces. {_AGAIN}")


def _require_cut(manifest: Manifest) -> None:
    """Check that the parts of a graph are those of `cut_graph`, so that each part's inputs are outputs of others."""
    for name, entry in manifest.graphs.items():
        if not entry.parts:
            continue
        try:
            expected = cut_graph(entry.spec, manifest.config.prior(entry.spec.level), len(entry.parts))
        except ConfigError as error:
            raise EngineError(f"graph {name!r} of the manifest cannot be cut: {error} {_AGAIN}") from error
        if expected != tuple(part.spec for part in entry.parts):
            raise EngineError(f"the parts of graph {name!r} of the manifest do not fit together. {_AGAIN}")
