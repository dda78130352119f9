"""The builder for TensorRT and TensorRT-RTX, which turns an ONNX graph into an engine.

Networks are strongly typed, so the precision is that of the graph. TensorRT-RTX builds without a GPU; TensorRT needs
the GPU that it builds for.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec
from jukebox_deploy.engines.graph_check import check_graph_file
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.tensorrt.capabilities import capabilities_of_engine, set_compute_capabilities
from jukebox_deploy.engines.tensorrt.flavour import (
    BuildEvents,
    Progress,
    load_flavour,
    no_progress,
    progress_monitor,
    shared_logger,
    stream_writer,
)
from jukebox_deploy.engines.tensorrt.listing import Launches, read_launches
from jukebox_deploy.engines.tensorrt.timing import TimingCache
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_path
from jukebox_deploy.listing import words_of

_INT64_NOTE = "Int64 binding"  # a warning about every int64 tensor, which is declared so on purpose
_HINTS = {
    "Turing (SM75)": "Compute capability 7.5 cannot multiply fp32 matrices, as this graph does: leave 7.5 out.",
    "HW-specific datatypes": "The GPU has no arithmetic of this precision: export with `--precision fp16`.",
    "CUDA driver version is insufficient": "This needs a GPU with a recent driver on the building machine.",
    "cudaError": "This needs a GPU on the building machine.",
    "CUDA_SUCCESS": "Stripping and refitting of weights needs a GPU on the building machine.",
    "libnvinfer_lean": "Version-compatible engines need the lean runtime library beside the others.",
    "std::bad_alloc": "Memory ran out; a build takes two to four times the size of the weights. "
    "Export again with `--parts`, so that each part is built by itself.",
    "external data": "The weights lie in a file beside the .onnx file: copy both.",
}


class Feature(StrEnum):
    """An optional feature of an engine."""

    WEIGHT_STREAMING = "weight-streaming"  # weights may stay in host memory; steps cannot be recorded as CUDA graphs
    VERSION_COMPATIBLE = "version-compatible"  # other versions of the library run it, with this version's lean runtime
    REFIT = "refit"  # its weights can be replaced
    STRIPPED = "stripped"  # has no weights; those of the ONNX graph must be put in before it runs


def _flags(trt: Any, feature: Feature) -> tuple[Any, ...]:
    flags = trt.BuilderFlag
    return {
        Feature.WEIGHT_STREAMING: (flags.WEIGHT_STREAMING,),
        # An engine that includes the lean runtime has code for the host, which users would have to allow.
        Feature.VERSION_COMPATIBLE: (flags.VERSION_COMPATIBLE, flags.EXCLUDE_LEAN_RUNTIME),
        Feature.REFIT: (flags.REFIT,),
        Feature.STRIPPED: (flags.STRIP_PLAN, flags.REFIT_IDENTICAL),
    }[feature]


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build."""

    target: Target = Target.TENSORRT_RTX
    compute_capabilities: tuple[str, ...] = ()  # such as "8.6"; empty: the flavour's default
    skip_refused: bool = False  # leave out GPUs that cannot run a graph, rather than raise an error
    slots: tuple[int, ...] = ()  # one profile for each of these numbers; empty: one profile for the declared range
    features: tuple[Feature, ...] = ()
    timing_caches: Path | None = None  # folder; see `TimingCache`

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute_capabilities", tuple(dict.fromkeys(self.compute_capabilities)))
        object.__setattr__(self, "slots", tuple(sorted(set(self.slots))))
        object.__setattr__(self, "features", tuple(dict.fromkeys(self.features)))


@dataclass(frozen=True)
class BuildSummary:
    """Result of building a graph, or a part of a cut graph. Sizes are in bytes, times in seconds."""

    graph: str
    layers: int  # number of layers of the parsed network
    caches_in_place: int
    profiles: int
    kernels: int | None  # number that one run launches, for the profile that launches most; None: unknown
    engine_bytes: int
    activation_bytes: int | None  # working memory, without weights, inputs and outputs; None: unknown
    seconds: float
    process_peak_bytes: int | None  # highest resident memory of this process so far
    warnings: tuple[str, ...]
    compute_capabilities: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  # a sentence for each GPU that was left out


def build_engine(
    onnx_path: Path,
    spec: GraphSpec,
    engine_path: Path,
    options: BuildOptions,
    weight_files: Collection[str] = (),
    progress: Progress = no_progress,
) -> BuildSummary:
    """Check, parse and build one graph. The engine is written atomically.

    `weight_files`: paths of the external weight files, relative to the `.onnx` file.
    Raises `EngineError` with the library's own messages, and any exception of a callback.
    """
    started = time.perf_counter()
    check_graph_file(onnx_path, spec, weight_files)
    logger = shared_logger(options.target)
    logger.events = BuildEvents()
    with logger.events.interruptible():
        summary = _parse_and_build(onnx_path, spec, engine_path, options, weight_files, progress, logger)
    return replace(summary, seconds=time.perf_counter() - started)


def _parse_and_build(
    onnx_path: Path,
    spec: GraphSpec,
    engine_path: Path,
    options: BuildOptions,
    weight_files: Collection[str],
    progress: Progress,
    logger: Any,
) -> BuildSummary:
    """Return the summary of a build, without its time."""
    trt, events = load_flavour(options.target), logger.events
    builder = _create_builder(trt, logger, spec, options.target)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        raise _failure(events, f"{spec.name}: {options.target} cannot parse the graph")
    in_place = _count_cache_updates(trt, network)
    _require_cache_updates(spec, in_place, options.target)
    builder_config = _configure(trt, builder, network, spec, options)
    timing = None
    if options.timing_caches is not None:
        files = [onnx_path, *(onnx_path.parent / name for name in weight_files)]
        timing = TimingCache.of(trt, options.timing_caches, files, repr(replace(options, timing_caches=None)))
        timing.load(builder_config)
    # Also without `progress`, because the monitor ends the build after Ctrl-C.
    builder_config.progress_monitor = progress_monitor(options.target, events, progress)
    layers = network.num_layers
    with atomic_path(engine_path) as part, part.open("wb") as file:
        writer = stream_writer(options.target, events, file)
        done = builder.build_serialized_network_to_stream(network, builder_config, writer)
        _require_engine(done, events, spec, options.target)
    if timing is not None:
        timing.save(builder_config)
    profiles = max(1, builder_config.num_optimization_profiles)
    launches = read_launches("\n".join(events.texts("VERBOSE")), profiles)
    return BuildSummary(
        graph=spec.name,
        layers=layers,
        caches_in_place=in_place,
        profiles=profiles,
        kernels=None if launches is None else launches.kernels,
        engine_bytes=events.written,
        activation_bytes=events.number("Total Activation Memory:"),
        seconds=0.0,
        process_peak_bytes=_process_peak_bytes(),
        warnings=(
            *_remarks(spec, options, launches, network),
            *(t for t in events.texts("WARNING") if _INT64_NOTE not in t),
        ),
        compute_capabilities=capabilities_of_engine(builder_config, options.compute_capabilities),
    )


def _remarks(spec: GraphSpec, options: BuildOptions, launches: Launches | None, network: Any) -> Iterator[str]:
    """Yield warnings about choices that make steps slower."""
    if spec.kind is not GraphKind.STEP:
        return
    if Feature.WEIGHT_STREAMING in options.features:
        yield (
            "this step may stream its weights, so it cannot be recorded as a CUDA graph; where all weights fit the "
            f"GPU, build without --feature {Feature.WEIGHT_STREAMING}."
        )
    if launches is not None and launches.written_weights:
        one_slot = _is_for_one_slot(network, spec, options)
        yield (
            f"{launches.written_weights} kernels of every step only dequantise weights to memory, which takes longer "
            f"than reading float weights would. Export {_way_out(launches.written_types, one_slot)}with float "
            "weights (--weights precision)."
        )


def _way_out(written_types: frozenset[str], one_slot: bool) -> str:
    """Return how else to export so that a step does not write its quantised weights out, with `, or` after it."""
    if not one_slot:
        return "with --weights int8, or " if "Int4" in written_types else ""
    return "" if "Int4" in written_types else "for more than one slot (--batch 1,4,16), or "


def _is_for_one_slot(network: Any, spec: GraphSpec, options: BuildOptions) -> bool:
    """Return whether the graph is, or a profile of its engine will be, fixed at one slot."""
    inputs = zip(spec.inputs, _inputs(network), strict=True)
    sizes = {parsed.shape[0] for tensor, parsed in inputs if tensor.dims[:1] == ("B",)}
    profiles = [r.maximum for ranges in profile_ranges(spec, options.slots) for r in ranges if r.symbol == "B"]
    return sizes == {1} or 1 in profiles


def _create_builder(trt: Any, logger: Any, spec: GraphSpec, target: Target) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # the library returned a null pointer, for instance without a GPU
        raise _failure(logger.events, f"{spec.name}: {target} cannot start its builder ({error})") from error


def _configure(trt: Any, builder: Any, network: Any, spec: GraphSpec, options: BuildOptions) -> Any:
    builder_config = builder.create_builder_config()
    set_compute_capabilities(trt, builder_config, options.compute_capabilities, options.target)
    builder_config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # otherwise the listing lacks kernel names
    builder_config.clear_flag(trt.BuilderFlag.TF32)  # otherwise the mantissas of fp32 matrices are rounded to ten bits
    streams = Feature.WEIGHT_STREAMING in options.features  # such an engine must allocate memory for streamed weights
    if spec.states and not streams and hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        builder_config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # otherwise a run cannot be captured
    for flag in (flag for feature in options.features for flag in _flags(trt, feature)):
        builder_config.set_flag(flag)
    for ranges in profile_ranges(spec, options.slots):
        profile = builder.create_optimization_profile()
        _set_shapes(profile, network, replace(spec, ranges=ranges))
        if builder_config.add_optimization_profile(profile) < 0:
            asked = words_of(f"{r.symbol} from {r.minimum} to {r.maximum}, best {r.optimum}" for r in ranges)
            raise EngineError(f"{spec.name}: {options.target} refuses the ranges of a profile: {asked}.")
    return builder_config


def profile_ranges(spec: GraphSpec, slots: Sequence[int]) -> list[tuple[DimensionRange, ...]]:
    """Return the ranges of each profile.

    A graph with states has a profile for each number of slots, which is tuned for this number and begins after the
    previous one. The profile for one slot takes 1 to 2: next to a profile that is fixed at one slot, TensorRT-RTX
    stores every matrix in a second layout, and in such a profile it dequantises int8 and fp8 weights to memory at
    every step.
    """
    if not spec.ranges:
        return []
    if not slots or not spec.states:
        return [spec.ranges]
    lowest = [slots[0] if spec.kind is GraphKind.STEP else 1, *(number + 1 for number in slots[:-1])]
    highest = [max(2, number) for number in slots]
    return [
        spec.with_range(DimensionRange("B", low, best, high)).ranges
        for low, best, high in zip(lowest, slots, highest, strict=True)
    ]


def _set_shapes(profile: Any, network: Any, spec: GraphSpec) -> None:
    """Set the smallest, best and largest shape of every input that is dynamic in the graph.

    A graph may fix dimensions that its declaration leaves open.
    """
    sizes = (
        {r.symbol: r.minimum for r in spec.ranges},
        {r.symbol: r.optimum for r in spec.ranges},
        {r.symbol: r.maximum for r in spec.ranges},
    )
    for tensor, parsed in zip(spec.inputs, _inputs(network), strict=True):
        if any(dimension < 0 for dimension in parsed.shape):
            profile.set_shape(tensor.input_name, *(tensor.shape(size) for size in sizes))


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _count_cache_updates(trt: Any, network: Any) -> int:
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return sum(layer.type == trt.LayerType.KV_CACHE_UPDATE for layer in layers)


def _require_cache_updates(spec: GraphSpec, found: int, target: Target) -> None:
    expected = sum(state.in_place for state in spec.states)
    if found != expected:
        raise EngineError(
            f"{spec.name}: {target} found {found} in-place cache updates, expected {expected}. Export again."
        )


def _require_engine(done: bool, events: BuildEvents, spec: GraphSpec, target: Target) -> None:
    if events.failure:
        raise events.failure
    if not done or not events.written:
        raise _failure(events, f"{spec.name}: {target} cannot build the engine")


def _failure(events: BuildEvents, what: str) -> EngineError:
    """Make an error with the library's messages, and a hint on known ones."""
    texts = events.texts("INTERNAL_ERROR", "ERROR")
    # Without a GPU, every failure ends with an error about the driver, whatever its cause.
    causes = [text for text in texts if "cudaError" not in text] or texts
    said = "; ".join(causes) or "it gave no reason"
    hint = next((hint for text, hint in _HINTS.items() if text in said), "")
    return EngineError(f"{what}: {said.rstrip('.')}. {hint}".rstrip())


def _process_peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
