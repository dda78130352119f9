"""The engine bundle on disk: a folder with `manifest.json` and the files of its graphs.

Engines are code, so no file of a bundle is passed to a runtime before its hash has been verified.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.manifest import PIECE_BYTES, FileRecord, Manifest
from jukebox_deploy.engines.manifest_json import manifest_from_json, manifest_to_json
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import sha256_of_file, sha256_of_pieces, write_json_atomic
from jukebox_deploy.listing import words_of
from jukebox_deploy.threads import map_in_threads, usable_cores

MANIFEST_NAME = "manifest.json"
_MANIFEST_LIMIT = 64 * 2**20  # bytes; a released model needs about a hundredth of it


@dataclass(frozen=True)
class EngineBundle:
    """An opened bundle."""

    folder: Path
    manifest: Manifest

    @property
    def graphs(self) -> dict[str, GraphSpec]:
        """The declarations of the graphs, by name."""
        return {name: entry.spec for name, entry in self.manifest.graphs.items()}

    def select(self, names: Sequence[str]) -> dict[str, GraphSpec]:
        """Return the declarations of the named graphs, or of all graphs if `names` is empty.

        Raises `EngineError` for names that the bundle lacks.
        """
        graphs = self.graphs
        if unknown := [name for name in names if name not in graphs]:
            raise EngineError(f"{self.folder} has no graph {words_of(unknown, 'or')}; it has {words_of(graphs)}.")
        return {name: spec for name, spec in graphs.items() if not names or name in names}

    @property
    def parts(self) -> dict[str, tuple[GraphSpec, ...]]:
        """The declarations of the parts of each cut graph, in the order in which they run, by the graph's name."""
        return {
            name: tuple(part.spec for part in entry.parts)
            for name, entry in self.manifest.graphs.items()
            if entry.parts
        }

    @property
    def paths(self) -> dict[str, Path]:
        """The `.onnx` or `.engine` file of each graph that is not cut and of each part, by its name."""
        pieces = (piece for entry in self.manifest.graphs.values() for piece in entry.pieces)
        return {piece.spec.name: self.folder / piece.file for piece in pieces}

    def read_file(self, name: str) -> bytes:
        """Read a whole file of the bundle.

        Raises `EngineError` unless the bytes that were read have the hash in the manifest, because the file could have
        been changed since the bundle was opened.
        """
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise EngineError(f"{self.folder}: {name} cannot be read ({error}).") from error
        if not _is_content(content, self.manifest.files[name]):
            raise EngineError(
                f"{self.folder}: {name} is not the file of the manifest: its SHA-256 differs. Copy or build it again."
            )
        return content


def is_engine_bundle(folder: Path) -> bool:
    """Return whether a folder has a manifest, valid or not."""
    return (folder / MANIFEST_NAME).is_file()


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the files that the graphs name, and write `manifest.json` atomically.

    Returns the manifest with `files` filled in. Call this last, because a folder is a bundle once it has a manifest.
    """
    names = sorted({name for entry in manifest.graphs.values() for name in entry.files})
    written = dataclasses.replace(manifest, files={name: _record(folder / name) for name in names})
    data = manifest_to_json(written)
    manifest_from_json(json.loads(json.dumps(data)))  # raises if the manifest could not be read back
    write_json_atomic(folder / MANIFEST_NAME, data)
    return written


def _record(path: Path) -> FileRecord:
    size = path.stat().st_size
    return FileRecord(sha256_of_file(path), size, sha256_of_pieces(path, PIECE_BYTES) if size > PIECE_BYTES else ())


def write_parity(bundle: EngineBundle, parity: Mapping[str, Any]) -> None:
    """Replace the report of the comparison with the model in a bundle's manifest; its other files are unchanged."""
    data = manifest_to_json(dataclasses.replace(bundle.manifest, parity=parity))
    manifest_from_json(json.loads(json.dumps(data)))
    write_json_atomic(bundle.folder / MANIFEST_NAME, data)


def open_bundle(path: str | Path, verify_hashes: bool = True) -> EngineBundle:
    """Read the manifest of a folder and check every file that it names.

    `verify_hashes=False` skips the hashes, to inspect a bundle that will not be run.
    Raises `EngineError` for the first fault.
    """
    folder = Path(path)
    try:
        manifest = manifest_from_json(_read_manifest(folder))
        for name, record in manifest.files.items():
            _check_file(folder, name, record, verify_hashes)
    except EngineError as error:
        raise EngineError(f"{folder}: {error}") from error
    return EngineBundle(folder, manifest)


def _read_manifest(folder: Path) -> Any:
    path = folder / MANIFEST_NAME
    try:
        if not folder.is_dir():
            kind = "not a" if folder.exists() else "no such"
            raise EngineError(f"{kind} folder, so there is no {MANIFEST_NAME}. Name the folder of an engine bundle.")
        if not path.is_file():
            raise EngineError(f"there is no {MANIFEST_NAME}, so this is no engine bundle. Make one with `export`.")
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise EngineError(
                f"{MANIFEST_NAME} has {path.stat().st_size} bytes, and a manifest has at most {_MANIFEST_LIMIT}. "
                "Export or build the bundle again."
            )
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{MANIFEST_NAME} is not JSON ({error}). Export or build the bundle again.") from error
    except OSError as error:
        raise EngineError(f"{MANIFEST_NAME} cannot be read ({error}).") from error


def _has_hash(path: Path, record: FileRecord) -> bool:
    """Return whether a file has the recorded hash; hashes of pieces are preferred, because all cores compute them."""
    if record.pieces:
        return sha256_of_pieces(path, PIECE_BYTES) == record.pieces
    return sha256_of_file(path) == record.sha256


def _is_content(content: bytes, record: FileRecord) -> bool:
    """Return whether the content of a file has the recorded hash; those of pieces are computed by all cores."""
    if not record.pieces:
        return hashlib.sha256(content).hexdigest() == record.sha256
    view, threads = memoryview(content), usable_cores()  # slices of a view share its memory

    def digest(start: int) -> str:
        return hashlib.sha256(view[start : start + PIECE_BYTES]).hexdigest()

    starts = range(0, len(content), PIECE_BYTES)
    return tuple(map_in_threads(digest, starts, threads=threads, ahead=threads)) == record.pieces


def _check_file(folder: Path, name: str, record: FileRecord, verify_hash: bool) -> None:
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise EngineError(f"{name} is a link that leaves the bundle. Copy the file into the bundle.")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise EngineError(f"{name} is not a file. Export or build the bundle again.")
        if found.st_size != record.bytes:
            raise EngineError(
                f"{name} has {found.st_size} bytes, the manifest says {record.bytes}. Copy it or build it again."
            )
        if verify_hash and not _has_hash(path, record):
            raise EngineError(f"{name} is not the file of the manifest: its SHA-256 differs. Copy or build it again.")
    except FileNotFoundError:
        raise EngineError(f"{name} is missing. Copy it or build it again.") from None
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise EngineError(f"{name} cannot be read ({error}).") from error
