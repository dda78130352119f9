"""One builder for TensorRT and TensorRT-RTX: an ONNX graph in, an engine out.

Networks are strongly typed: the precision is that of the graph. TensorRT-RTX builds on a machine
without a GPU; TensorRT needs the GPU that it builds for.
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

_INT64_NOTE = "Int64 binding"  # the library remarks on every int64 tensor; the tables mean them
_HINTS = {
    "Turing (SM75)": "Compute capability 7.5 multiplies no fp32 matrices, which this graph does: leave 7.5 out.",
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
    """What an engine can be made to allow."""

    WEIGHT_STREAMING = "weight-streaming"  # weights may stay in host memory; runs cannot be recorded
    VERSION_COMPATIBLE = "version-compatible"  # later versions of the library load it, with their lean runtime
    REFIT = "refit"  # other weights can be put in
    STRIPPED = "stripped"  # has no weights: those of the ONNX graph have to be put in before it runs


def _flags(trt: Any, feature: Feature) -> tuple[Any, ...]:
    flags = trt.BuilderFlag
    return {
        Feature.WEIGHT_STREAMING: (flags.WEIGHT_STREAMING,),
        # With the lean runtime inside, an engine would hold code for the host, which nobody should have to allow.
        Feature.VERSION_COMPATIBLE: (flags.VERSION_COMPATIBLE, flags.EXCLUDE_LEAN_RUNTIME),
        Feature.REFIT: (flags.REFIT,),
        Feature.STRIPPED: (flags.STRIP_PLAN, flags.REFIT_IDENTICAL),
    }[feature]


@dataclass(frozen=True)
class BuildOptions:
    """What to build for."""

    target: Target = Target.TENSORRT_RTX
    compute_capabilities: tuple[str, ...] = ()  # "8.6"; empty: the flavour's default
    skip_refused: bool = False  # leave out GPUs that cannot run a graph, instead of refusing to build it
    slots: tuple[int, ...] = ()  # numbers of slots to have a profile for each; empty: one profile for the table's range
    features: tuple[Feature, ...] = ()
    timing_caches: Path | None = None  # folder; see `TimingCache`

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute_capabilities", tuple(dict.fromkeys(self.compute_capabilities)))
        object.__setattr__(self, "slots", tuple(sorted(set(self.slots))))
        object.__setattr__(self, "features", tuple(dict.fromkeys(self.features)))


@dataclass(frozen=True)
class BuildSummary:
    """What came of one graph, or of one part of a graph. Sizes in bytes, times in seconds."""

    graph: str
    layers: int  # of the parsed network
    caches_in_place: int
    profiles: int
    kernels: int | None  # that one run launches, with the profile that launches most, if the flavour says it
    engine_bytes: int
    activation_bytes: int | None  # device memory beside weights and tensors, if the flavour says it
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
    builder_config = _configure(trt, builder, network, spec, options)
    timing = None
    if options.timing_caches is not None:
        files = [onnx_path, *(onnx_path.parent / name for name in weight_files)]
        timing = TimingCache.of(trt, options.timing_caches, files, repr(replace(options, timing_caches=None)))
        timing.load(builder_config)
    # Always, for it is also what ends a build after Ctrl-C.
    builder_config.progress_monitor = progress_monitor(options.target, events, progress)
    layers = network.num_layers
    with atomic_path(engine_path) as part, part.open("wb") as file, events.interruptible():
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
        seconds=time.perf_counter() - started,
        process_peak_bytes=_process_peak_bytes(),
        warnings=(*_remarks(spec, options, launches), *(t for t in events.texts("WARNING") if _INT64_NOTE not in t)),
        compute_capabilities=capabilities_of_engine(builder_config, options.compute_capabilities),
    )


def _remarks(spec: GraphSpec, options: BuildOptions, launches: Launches | None) -> Iterator[str]:
    """What a choice costs later."""
    if spec.kind is not GraphKind.STEP:
        return
    if Feature.WEIGHT_STREAMING in options.features:
        yield (
            "this step may stream its weights, so it cannot be recorded as a CUDA graph; where all weights fit the "
            f"GPU, build without --feature {Feature.WEIGHT_STREAMING}."
        )
    if launches is not None and launches.written_weights:
        yield (
            f"{launches.written_weights} kernels of every step do nothing but write quantised weights out as floats, "
            "which takes longer than floats would. Export for more than one slot (--batch), or with --precision fp16."
        )


def _create_builder(trt: Any, logger: Any, spec: GraphSpec, target: Target) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # a null pointer of the library, for instance without a GPU
        raise _failure(logger.events, f"{spec.name}: {target} cannot start its builder ({error})") from error


def _configure(trt: Any, builder: Any, network: Any, spec: GraphSpec, options: BuildOptions) -> Any:
    builder_config = builder.create_builder_config()
    set_compute_capabilities(trt, builder_config, options.compute_capabilities, options.target)
    builder_config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or the listing would not name the kernels
    builder_config.clear_flag(trt.BuilderFlag.TF32)  # or matrices of fp32 would be rounded to ten bits
    streams = Feature.WEIGHT_STREAMING in options.features  # moves weights into memory of its own
    if spec.states and not streams and hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        builder_config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or a run could not be recorded
    for flag in (flag for feature in options.features for flag in _flags(trt, feature)):
        builder_config.set_flag(flag)
    for ranges in profile_ranges(spec, options.slots):
        profile = builder.create_optimization_profile()
        _set_shapes(profile, network, replace(spec, ranges=ranges))
        if builder_config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{spec.name}: {options.target} refuses the ranges {spec.to_json()['ranges']}.")
    return builder_config


def profile_ranges(spec: GraphSpec, slots: Sequence[int]) -> list[tuple[DimensionRange, ...]]:
    """The ranges of each profile: for a stack, one that is best at each number of slots and begins after the last.

    One slot gets the range 1 to 2. For a profile that is fixed at 1, TensorRT-RTX lays out all matrices a second time
    if there are others, and every step writes int8 and fp8 weights out as floats before it multiplies them.
    """
    if not spec.ranges:
        return []
    if not slots or not spec.states:
        return [spec.ranges]
    lowest = [slots[0] if spec.kind is GraphKind.STEP else 1, *(number + 1 for number in slots[:-1])]
    highest = [max(2, number) for number in slots]
    return [
        tuple(DimensionRange("B", low, best, high) if r.symbol == "B" else r for r in spec.ranges)
        for low, best, high in zip(lowest, slots, highest, strict=True)
    ]


def _set_shapes(profile: Any, network: Any, spec: GraphSpec) -> None:
    """Smallest, best and largest shape of every input of changing size; a graph may fix what its table lets change."""
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
            f"{spec.name}: {target} sees {found} caches updated in place, the table has {expected}. Export again."
        )


def _require_engine(done: bool, events: BuildEvents, spec: GraphSpec, target: Target) -> None:
    if events.failure:
        raise events.failure
    if not done or not events.written:
        raise _failure(events, f"{spec.name}: {target} cannot build the engine")


def _failure(events: BuildEvents, what: str) -> EngineError:
    """An error with what the library said, and what that means where it is known."""
    texts = events.texts("INTERNAL_ERROR", "ERROR")
    # Without a GPU every failure ends with a complaint about the driver, whatever went wrong before.
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
