"""Preparation of exported graphs with integer weights, so that ONNX Runtime opens them faster ("ready" graphs).

An export stores integer weights in the standard form, `DequantizeLinear` before `MatMul`. ONNX Runtime fuses the two
when it opens a graph and transposes every matrix for this, which takes most of the time of opening a step or a prefill.
Here it does this once, and weights that step and prefill share are still stored once. What remains at opening is the
packing of the matrices for the CPU. Packed matrices in a file would not help: ONNX Runtime packs again to compare.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart, Target
from jukebox_deploy.engines.onnx_files import read_graph
from jukebox_deploy.engines.onnxruntime.integer_blocks import block_size
from jukebox_deploy.engines.onnxruntime.library import import_onnxruntime
from jukebox_deploy.engines.onnxruntime.memory import failure
from jukebox_deploy.engines.onnxruntime.ready import ACCURACY_OF_INTEGERS, Maker, mark_ready, this_maker
from jukebox_deploy.engines.onnxruntime.sessions import ACCURACY, BLOCK_SIZE
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_directory, scratch_folder

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

READY = "onnxruntime"
"""Key of the `Maker` in a graph's options."""

_ALIGNMENT = 4096  # bytes of a memory page, because ONNX Runtime memory-maps the tensors
_SMALL = 1024  # bytes; smaller tensors stay in the graph's own file


def build_ready_bundle(
    source: EngineBundle,
    folder: Path,
    graphs: Sequence[str] = (),
    progress: Callable[[str], None] = lambda graph: None,
) -> EngineBundle:
    """Prepare graphs of an exported bundle (the named ones, or all) for this ONNX Runtime, in a new folder.

    The folder is written atomically. `progress` is called with the name of each graph before it is prepared.
    Raises `JukeboxError` if the folder is not empty, and `EngineError` for a bundle in which nothing can be prepared.
    """
    names = _select(source, graphs)
    maker = this_maker(import_onnxruntime())
    with atomic_directory(folder) as part:
        files: dict[str, _WeightFile] = {}
        try:
            entries = {name: _build_entry(source, name, part, files, maker, progress) for name in names}
        finally:
            for file in files.values():
                file.stream.close()
        tools = {**source.manifest.tools, "onnxruntime": maker.version}
        write_manifest(part, replace(source.manifest, graphs=entries, tools=tools, parity=None))
    return open_bundle(folder, verify_hashes=False)


def is_ready(entry: GraphEntry) -> bool:
    """Return whether a graph has been prepared, so that it is no longer standard ONNX."""
    return READY in entry.options


def can_be_ready(source: EngineBundle) -> bool:
    """Return whether ONNX Runtime has fused products for a bundle's weights, which have not been prepared yet."""
    manifest = source.manifest
    fused = manifest.linear_weights in (LinearWeights.INT8, LinearWeights.INT4) and manifest.precision != Precision.BF16
    return fused and not any(is_ready(entry) for entry in manifest.graphs.values())


def _select(source: EngineBundle, graphs: Sequence[str]) -> list[str]:
    manifest = source.manifest
    if manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(f"{source.folder} holds {manifest.target} engines; build from an exported ONNX bundle.")
    if any(is_ready(entry) for entry in manifest.graphs.values()):
        raise EngineError(f"{source.folder} was made ready already; build from the graphs that were exported.")
    if not can_be_ready(source):
        raise EngineError(
            f"nothing in {source.folder} can be prepared, which is for int8 and int4 weights in fp32 or fp16 "
            "arithmetic. ONNX Runtime runs these graphs as they are: give the folder to `sample` itself."
        )
    return list(source.select(graphs))


@dataclass
class _WeightFile:
    """A weight file that is being written; equal tensors are stored once."""

    stream: BinaryIO
    _places: dict[bytes, int] = field(default_factory=dict)

    def place(self, content: np.ndarray) -> int:
        """Write some bytes unless the file already has them, and return their offset."""
        digest = hashlib.sha256(content.data).digest()
        if digest not in self._places:
            self.stream.seek(-self.stream.tell() % _ALIGNMENT, os.SEEK_CUR)
            self._places[digest] = self.stream.tell()
            self.stream.write(content.data)
        return self._places[digest]


def _build_entry(
    source: EngineBundle,
    name: str,
    folder: Path,
    files: dict[str, _WeightFile],
    maker: Maker,
    progress: Callable[[str], None],
) -> GraphEntry:
    entry = source.manifest.graphs[name]
    progress(name)
    readied = [_build_piece(source, entry, piece, folder, files, maker) for piece in entry.pieces]
    facts = {READY: maker.to_json()} if any(readied) else {}
    made_of = source.manifest.source_facts(name)
    return replace(entry, options={**entry.options, **facts, **made_of}, weights=entry.weights[:1])


def _build_piece(
    source: EngineBundle, entry: GraphEntry, piece: GraphPart, folder: Path, files: dict[str, _WeightFile], maker: Maker
) -> bool:
    """Write one graph file and its weights, and return whether it had anything to prepare."""
    path = source.folder / piece.file
    model = read_graph(path)
    ready = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    with scratch_folder(folder) as scratch:
        if ready:
            path = _optimise(path, block_size(model), scratch)
            model = read_graph(path)
            mark_ready(model, maker)
        if entry.weights:
            _move_weights(model, path.parent, piece.file, entry.weights[0], folder, files)
        (folder / piece.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / piece.file).write_bytes(model.SerializeToString())
    return ready


def _optimise(path: Path, size_of_blocks: int, scratch: Path) -> Path:
    """Save a graph as ONNX Runtime optimises it, with external weights, and return its path.

    The extended optimisation level is the highest one whose result does not depend on the CPU.
    """
    runtime = import_onnxruntime()
    saved = scratch / "graph.onnx"
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(saved)
    entries = {
        "session.disable_prepacking": "1",  # this session never runs
        ACCURACY: str(ACCURACY_OF_INTEGERS),
        BLOCK_SIZE: str(size_of_blocks),
        "session.optimized_model_external_initializers_file_name": "graph.weights",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_SMALL),
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has many exception types
        if "Failed to write" in str(error):  # its only message for a full disk, with a long C++ signature
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(saved)) from error
        raise failure(f"ONNX Runtime cannot make {path.name} ready", error) from error
    return saved


def _move_weights(
    model: ModelProto, here: Path, file: str, weights: str, folder: Path, files: dict[str, _WeightFile]
) -> None:
    """Copy a graph's external weights from the folder `here` to the weight file of the new folder."""
    if weights not in files:
        (folder / weights).parent.mkdir(parents=True, exist_ok=True)
        files[weights] = _WeightFile((folder / weights).open("wb"))
    location = os.path.relpath(weights, os.path.dirname(file) or ".")
    for tensor in model.graph.initializer:
        if tensor.external_data:
            content = _content(tensor, here)
            _point(tensor, location, files[weights].place(content), content.nbytes)


def _content(tensor: TensorProto, here: Path) -> np.ndarray:
    place = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = int(place.get("offset", 0)), int(place["length"])
    return np.memmap(here / place["location"], np.uint8, "r", offset, (length,))


def _point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        tensor.external_data.add(key=key, value=str(value))
