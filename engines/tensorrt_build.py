"""One builder for TensorRT and TensorRT-RTX: an ONNX bundle in, an engine bundle out.

Networks are strongly typed: the precision is that of the graph. TensorRT-RTX builds on a machine
without a GPU; TensorRT needs the GPU that it builds for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.graph_check import check_graph_file
from jukebox_deploy.engines.manifest import GraphEntry, Target
from jukebox_deploy.engines.tensorrt_flavour import (
    BuildEvents,
    Progress,
    flavour_version,
    load_flavour,
    no_progress,
    progress_monitor,
    require_precision,
    set_compute_capabilities,
    shared_logger,
    stream_writer,
)
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_directory, atomic_path
from jukebox_deploy.processes import map_in_processes

_INT64_NOTE = "Int64 binding"  # the library remarks on every int64 tensor; the tables mean them
_HINTS = {
    "Turing (SM75)": "Compute capability 7.5 multiplies no fp32 matrices, which this graph does: leave 7.5 out.",
    "HW-specific datatypes": "The GPU has no arithmetic of this precision: export with `--precision fp16`.",
    "CUDA driver version is insufficient": "This needs a GPU with a recent driver on the building machine.",
    "cudaError": "This needs a GPU on the building machine.",
    "std::bad_alloc": "Memory ran out; a build takes two to four times the size of the weights.",
    "external data": "The weights lie in a file beside the .onnx file: copy both.",
}


@dataclass(frozen=True)
class BuildOptions:
    """What to build for."""

    target: Target = Target.TENSORRT_RTX
    compute_capabilities: tuple[str, ...] = ()  # "8.6"; empty: the flavour's default

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute_capabilities", tuple(dict.fromkeys(self.compute_capabilities)))


@dataclass(frozen=True)
class BuildSummary:
    """What came of one graph. Sizes in bytes, times in seconds."""

    graph: str
    layers: int  # of the parsed network
    caches_in_place: int
    engine_bytes: int
    activation_bytes: int | None  # device memory beside weights and tensors, if the flavour says it
    seconds: float
    process_peak_bytes: int | None  # highest resident memory of this process so far
    warnings: tuple[str, ...]


def build_engine(
    onnx_path: Path,
    spec: GraphSpec,
    engine_path: Path,
    options: BuildOptions,
    weight_files: Collection[str] = (),
    progress: Progress = no_progress,
) -> BuildSummary:
    """Check, parse and build one graph; the engine appears whole or not at all.

    `weight_files`: names of the external weight files beside the `.onnx` file.
    Raises `EngineError` with the library's own messages, and whatever a callback raised.
    """
    started = time.perf_counter()
    check_graph_file(onnx_path, spec, weight_files)
    trt = load_flavour(options.target)
    logger = shared_logger(options.target)
    events = logger.events = BuildEvents()
    builder = _create_builder(trt, logger, spec, options.target)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        raise _failure(events, f"{spec.name}: {options.target} cannot parse the graph")
    in_place = _count_cache_updates(trt, network)
    _require_cache_updates(spec, in_place, options.target)
    builder_config = _configure(trt, builder, spec, options)
    # Always, for it is also what ends a build after Ctrl-C.
    builder_config.progress_monitor = progress_monitor(options.target, events, progress)
    layers = network.num_layers
    with atomic_path(engine_path) as part, part.open("wb") as file, events.interruptible():
        writer = stream_writer(options.target, events, file)
        done = builder.build_serialized_network_to_stream(network, builder_config, writer)
        _require_engine(done, events, spec, options.target)
    return BuildSummary(
        graph=spec.name,
        layers=layers,
        caches_in_place=in_place,
        engine_bytes=events.written,
        activation_bytes=events.number("Total Activation Memory:"),
        seconds=time.perf_counter() - started,
        process_peak_bytes=_process_peak_bytes(),
        warnings=tuple(text for text in events.texts("WARNING") if _INT64_NOTE not in text),
    )


def _create_builder(trt: Any, logger: Any, spec: GraphSpec, target: Target) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # a null pointer of the library, for instance without a GPU
        raise _failure(logger.events, f"{spec.name}: {target} cannot start its builder ({error})") from error


def _configure(trt: Any, builder: Any, spec: GraphSpec, options: BuildOptions) -> Any:
    builder_config = builder.create_builder_config()
    set_compute_capabilities(trt, builder_config, options.compute_capabilities, options.target)
    builder_config.clear_flag(trt.BuilderFlag.TF32)  # or matrices of fp32 would be rounded to ten bits
    if spec.states and hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        builder_config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or a run could not be recorded
    if spec.ranges:
        profile = builder.create_optimization_profile()
        _set_shapes(profile, spec)
        if builder_config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{spec.name}: {options.target} refuses the ranges {spec.to_json()['ranges']}.")
    return builder_config


def _set_shapes(profile: Any, spec: GraphSpec) -> None:
    """Smallest, best and largest shape of every input of changing size."""
    sizes = (
        {r.symbol: r.minimum for r in spec.ranges},
        {r.symbol: r.optimum for r in spec.ranges},
        {r.symbol: r.maximum for r in spec.ranges},
    )
    for tensor in spec.inputs:
        if any(isinstance(dimension, str) for dimension in tensor.dims):
            profile.set_shape(tensor.input_name, *(tensor.shape(size) for size in sizes))


def _count_cache_updates(trt: Any, network: Any) -> int:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return sum(layer.type == trt.LayerType.KV_CACHE_UPDATE for layer in layers)


def _require_cache_updates(spec: GraphSpec, found: int, target: Target) -> None:
    expected = sum(state.in_place for state in spec.states)
    if found != expected:
        raise EngineError(
            f"{spec.name}: {target} sees {found} caches updated in place, the table has {expected}. Export again."
        )


def _require_engine(done: bool, events: BuildEvents, spec: GraphSpec, target: Target) -> None:
    if events.failure:
        raise events.failure
    if not done or not events.written:
        raise _failure(events, f"{spec.name}: {target} cannot build the engine")


def _failure(events: BuildEvents, what: str) -> EngineError:
    """An error with what the library said, and what that means where it is known."""
    said = "; ".join(events.texts("INTERNAL_ERROR", "ERROR")) or "it gave no reason"
    hint = next((hint for text, hint in _HINTS.items() if text in said), "")
    return EngineError(f"{what}: {said.rstrip('.')}. {hint}".rstrip())


def _process_peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


GraphProgress = Callable[[str, str, int, int], None]
"""Told of every finished step: graph, phase, steps done, steps in all."""


def build_bundle(
    source: EngineBundle,
    folder: Path,
    options: BuildOptions,
    graphs: Sequence[str] = (),
    progress: GraphProgress | None = None,
    processes: int = 1,
) -> tuple[EngineBundle, list[BuildSummary]]:
    """Build engines of an opened ONNX bundle (of the named graphs, or of all) into a new folder.

    The folder appears when everything is built, or not at all. `JukeboxError` if it holds something already.
    One of several `processes` (see `processes_to_build`) tells of finished engines, not of steps.
    """
    entries = _select(source, graphs)
    require_precision(source.manifest.precision, options.compute_capabilities, source.manifest.linear_weights)
    load_flavour(options.target)
    with atomic_directory(folder) as part:
        summaries = []
        for summary in _build_all(source, entries, part, options, progress, processes):
            summaries.append(summary)
            if progress is not None and processes > 1:
                progress(summary.graph, "built", len(summaries), len(entries))
        _write_bundle_manifest(part, source, options, entries, summaries)
    return open_bundle(folder, verify_hashes=False), summaries


def _build_all(
    source: EngineBundle,
    entries: Mapping[str, GraphEntry],
    folder: Path,
    options: BuildOptions,
    progress: GraphProgress | None,
    processes: int,
) -> Iterator[BuildSummary]:
    calls = [
        (source.folder / entry.file, entry.spec, folder / f"{name}.engine", options, _beside(entry))
        for name, entry in entries.items()
    ]
    if processes > 1:
        yield from map_in_processes(build_engine, calls, processes)
        return
    for name, call in zip(entries, calls, strict=True):
        yield build_engine(*call, no_progress if progress is None else _of_graph(progress, name))


_SMALL_WEIGHTS = 256 << 20
"""Bytes of weights of all graphs up to which several are built at once; each takes two to four times its own."""


def processes_to_build(source: EngineBundle, graphs: Sequence[str] = ()) -> int:
    """As many as there are cores, if the weights are small, and at most one per two graphs."""
    entries = _select(source, graphs)
    weights = sum(source.manifest.files[name].bytes for entry in entries.values() for name in entry.weights)
    return max(1, min(os.cpu_count() or 1, len(entries) // 2)) if weights <= _SMALL_WEIGHTS else 1


def _select(source: EngineBundle, graphs: Sequence[str]) -> dict[str, GraphEntry]:
    manifest = source.manifest
    if manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(f"{source.folder} holds {manifest.target} engines; build from an exported ONNX bundle.")
    if unknown := [name for name in graphs if name not in manifest.graphs]:
        raise EngineError(f"{source.folder} has no graphs {unknown}; it has {list(manifest.graphs)}.")
    return {name: entry for name, entry in manifest.graphs.items() if not graphs or name in graphs}


def _beside(entry: GraphEntry) -> list[str]:
    """The weight files as the `.onnx` file spells them, relative to itself."""
    start = os.path.dirname(entry.file) or "."
    return [os.path.relpath(name, start) for name in entry.weights]


def _of_graph(progress: GraphProgress, graph: str) -> Progress:
    return lambda phase, step, steps: progress(graph, phase, step, steps)


def _write_bundle_manifest(
    folder: Path,
    source: EngineBundle,
    options: BuildOptions,
    entries: Mapping[str, GraphEntry],
    summaries: Sequence[BuildSummary],
) -> None:
    tools = {**source.manifest.tools, str(options.target): flavour_version(options.target)}
    built = {summary.graph: _engine_entry(source, options, entries[summary.graph], summary) for summary in summaries}
    write_manifest(folder, replace(source.manifest, target=options.target, graphs=built, tools=tools, parity=None))


def _engine_entry(source: EngineBundle, options: BuildOptions, entry: GraphEntry, summary: BuildSummary) -> GraphEntry:
    facts = {
        "onnx_sha256": source.manifest.files[entry.file].sha256,
        "layers": summary.layers,
        "activation_bytes": summary.activation_bytes,
    }
    return GraphEntry(
        spec=entry.spec,
        file=f"{summary.graph}.engine",
        compute_capabilities=options.compute_capabilities,
        options={**entry.options, **facts},
    )
