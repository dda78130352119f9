"""`manifest.json`: a manifest as plain data and back.

Reading is strict: unknown or missing keys, other types and other versions are refused with one
sentence each, and a checksum over the whole manifest shows whether it is as it was written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.contract import GraphSpec, LinearWeights, Precision, dimension_symbol
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
from jukebox_deploy.graphs import cut_graph

_AGAIN = "Export or build the bundle again."
# No absolute paths, no "..", no hidden files, nothing that another system reads differently.
_FILE_NAME = re.compile(r"(?:[\w-][\w.-]*/)*[\w-][\w.-]*", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SYMBOL = re.compile(r"[A-Za-z]\w*", re.ASCII)
_MOST = 2**31 - 1  # of anything that is counted along an axis


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as plain data, with its checksum."""
    data = {
        "format_version": manifest.format_version,
        "target": str(manifest.target),
        "precision": str(manifest.precision),
        "linear_weights": str(manifest.linear_weights),
        "config": config_to_dict(manifest.config),
        "checkpoint": manifest.checkpoint,
        "graphs": {name: _entry_to_json(entry) for name, entry in manifest.graphs.items()},
        "tools": dict(manifest.tools),
        "files": {
            name: {"sha256": r.sha256, "bytes": r.bytes, "pieces": list(r.pieces)} for name, r in manifest.files.items()
        },
        "parity": manifest.parity,
        "vocabulary": dict(manifest.vocabulary),
    }
    return {**data, "checksum": _checksum(data)}


def _entry_to_json(entry: GraphEntry) -> dict[str, Any]:
    return {
        "table": entry.spec.to_json(),
        "file": entry.file or None,
        "weights": list(entry.weights),
        "compute_capabilities": list(entry.compute_capabilities),
        "options": dict(entry.options),
        "parts": [{"table": part.spec.to_json(), "file": part.file} for part in entry.parts],
    }


def _checksum(data: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the manifest holds a value that JSON cannot: {error}.") from error
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_from_json(data: Any) -> Manifest:
    """Read a manifest; `EngineError` with one sentence for whatever is wrong with it."""
    if not isinstance(data, dict):
        raise EngineError(f"the manifest is not an object but {type(data).__name__}. {_AGAIN}")
    if (version := data.get("format_version")) != FORMAT_VERSION:
        raise EngineError(f"the bundle has format version {version!r}, this program reads {FORMAT_VERSION}. {_AGAIN}")
    if data.get("checksum") != _checksum({key: value for key, value in data.items() if key != "checksum"}):
        raise EngineError(f"the manifest was changed since it was written: its checksum does not match. {_AGAIN}")
    _require_keys(data, _KEYS, "the manifest")
    try:
        config = config_from_dict(JukeboxConfig, data["config"])
        target, precision = Target(data["target"]), Precision(data["precision"])
        linear_weights = LinearWeights(data["linear_weights"])
    except (ConfigError, ValueError) as error:
        raise EngineError(f"the manifest is not readable: {error} {_AGAIN}") from error
    files = {_file_name(n): _file_record(n, r) for n, r in _table(data["files"], "files").items()}
    manifest = Manifest(
        target=target,
        precision=precision,
        linear_weights=linear_weights,
        config=config,
        checkpoint=_text(data["checkpoint"], "checkpoint"),
        graphs={n: _entry_from_json(n, e) for n, e in _table(data["graphs"], "graphs").items()},
        tools={n: _text(v, f"tools.{n}") for n, v in _table(data["tools"], "tools").items()},
        files=files,
        parity=None if data["parity"] is None else _table(data["parity"], "parity"),
        vocabulary=_table(data["vocabulary"], "vocabulary"),
    )
    _require_listed(manifest)
    _require_cut(manifest)
    return manifest


_KEYS = {
    "format_version",
    "target",
    "precision",
    "linear_weights",
    "config",
    "checkpoint",
    "graphs",
    "tools",
    "files",
    "parity",
    "vocabulary",
    "checksum",
}
_ENTRY_KEYS = {"table", "file", "weights", "compute_capabilities", "options", "parts"}


def _entry_from_json(name: str, data: Any) -> GraphEntry:
    where = f"graph {name!r} of the manifest"
    entry = _require_keys(_table(data, where), _ENTRY_KEYS, where)
    spec = _graph_spec(where, _table(entry["table"], where))
    if spec.name != name:
        raise EngineError(f"{where} has the table of {spec.name!r}. {_AGAIN}")
    parts = tuple(_part_from_json(f"a part of {where}", part) for part in _list(entry["parts"], where))
    if (entry["file"] is None) != bool(parts):
        raise EngineError(f"{where} has neither one file nor parts, or both. {_AGAIN}")
    return GraphEntry(
        spec=spec,
        file="" if parts else _file_name(entry["file"]),
        weights=tuple(_file_name(n) for n in _list(entry["weights"], where)),
        compute_capabilities=tuple(_text(c, where) for c in _list(entry["compute_capabilities"], where)),
        options=_table(entry["options"], where),
        parts=parts,
    )


def _part_from_json(where: str, data: Any) -> GraphPart:
    part = _require_keys(_table(data, where), {"table", "file"}, where)
    return GraphPart(_graph_spec(where, _table(part["table"], where)), _file_name(part["file"]))


def _require_cut(manifest: Manifest) -> None:
    """The parts of a graph are those that this version cuts it into: what one gives, another takes."""
    for name, entry in manifest.graphs.items():
        if not entry.parts:
            continue
        try:
            expected = cut_graph(entry.spec, manifest.config.prior(entry.spec.level), len(entry.parts))
        except ConfigError as error:
            raise EngineError(f"graph {name!r} of the manifest cannot be cut: {error} {_AGAIN}") from error
        if expected != tuple(part.spec for part in entry.parts):
            raise EngineError(f"the parts of graph {name!r} of the manifest do not fit together. {_AGAIN}")


def _graph_spec(where: str, data: dict[str, Any]) -> GraphSpec:
    """The table of a graph; what does not come out as it went in holds something unknown."""
    try:
        spec = GraphSpec.from_json(data)
    except TypeError as error:  # a list where a name belongs
        raise EngineError(f"{where} has a table that is not sound: {error}. {_AGAIN}") from error
    symbols = {r.symbol for r in spec.ranges}
    sound = (
        (spec.part is None or type(spec.part) is int)
        and type(data["level"]) is int
        and all(_is_sound_dimension(d, symbols) for t in spec.tensors for d in t.dims)
        and all(isinstance(t.name, str) for t in spec.tensors)
        and all(_is_count(n) for r in spec.ranges for n in (r.minimum, r.optimum, r.maximum))
        and all(r.minimum <= r.optimum <= r.maximum for r in spec.ranges)
    )
    if not sound or spec.to_json() != data:
        raise EngineError(f"{where} has a table that is not sound. {_AGAIN}")
    return spec


def _is_sound_dimension(dimension: Any, symbols: set[str]) -> bool:
    if not isinstance(dimension, str):
        return _is_count(dimension)
    try:
        symbol, factor = dimension_symbol(dimension)
    except ValueError:
        return False
    return 0 < factor <= _MOST and symbol in symbols and _SYMBOL.fullmatch(symbol) is not None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST


def _require_listed(manifest: Manifest) -> None:
    """Every file that a graph names has a hash, and every file with a hash belongs to a graph."""
    needed = {name for entry in manifest.graphs.values() for name in entry.files}
    if odd := sorted(needed ^ set(manifest.files)):
        raise EngineError(f"the manifest's graphs and its list of files disagree on {odd}. {_AGAIN}")


def _require_keys(data: dict[str, Any], keys: set[str], where: str) -> dict[str, Any]:
    if odd := sorted(set(data) ^ keys):
        raise EngineError(f"{where} has unknown or missing keys {odd}; expected are {sorted(keys)}. {_AGAIN}")
    return data


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EngineError(f"{where}: expected an object, found {value!r}. {_AGAIN}")
    return cast(dict[str, Any], value)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise EngineError(f"{where}: expected a list, found {value!r}. {_AGAIN}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise EngineError(f"{where}: expected a text, found {value!r}. {_AGAIN}")
    return value


def _file_name(value: Any) -> str:
    """A path that stays inside the bundle."""
    if not isinstance(value, str) or len(value) > 200 or not _FILE_NAME.fullmatch(value):
        raise EngineError(f"the manifest names the file {value!r}, which is no plain path inside the bundle. {_AGAIN}")
    return value


def _file_record(name: str, data: Any) -> FileRecord:
    where = f"file {name!r} of the manifest"
    record = _require_keys(_table(data, where), {"sha256", "bytes", "pieces"}, where)
    size, pieces = record["bytes"], record["pieces"]
    if type(size) is not int or size < 0 or not _is_sha256(record["sha256"]):
        raise EngineError(f"{where} has no readable size and hash. {_AGAIN}")
    expected = -(-size // PIECE_BYTES) if size > PIECE_BYTES else 0
    if type(pieces) is not list or len(pieces) != expected or not all(map(_is_sha256, pieces)):
        raise EngineError(f"{where} should have hashes of {expected} pieces, and has not. {_AGAIN}")
    return FileRecord(record["sha256"], size, tuple(pieces))


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
