"""Building of an engine bundle from an ONNX bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jukebox_deploy.contract import DimensionRange, GraphKind, GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle, open_bundle, write_manifest
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart, Target
from jukebox_deploy.engines.onnxruntime.build import is_ready
from jukebox_deploy.engines.tensorrt.build import BuildOptions, BuildSummary, Feature, build_engine
from jukebox_deploy.engines.tensorrt.capabilities import (
    Arithmetic,
    Refusal,
    default_capabilities,
    find_nameless,
    find_refusals,
)
from jukebox_deploy.engines.tensorrt.flavour import Progress, flavour_version, load_flavour
from jukebox_deploy.engines.tensorrt.trial import try_build
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.listing import words_of
from jukebox_deploy.processes import map_in_processes
from jukebox_deploy.threads import usable_cores


@dataclass(frozen=True)
class BuildProgress:
    """How far the build of a bundle is. TensorRT's phases take very different times, so a share is no time."""

    built: int  # number of finished engines
    engines: int  # number of engines in all
    engine: str = ""  # name of the one in work; empty: none, or one in each of several processes
    phase: str = ""  # what the builder does, in its own words
    done: float = 0.0  # share of the steps of this phase, 0 to 1


ProgressListener = Callable[[BuildProgress], None]
"""Called at the beginning, during every step of an engine, and after every engine."""


@dataclass(frozen=True)
class _Build:
    """A graph, or a part of a cut graph, to be built."""

    graph: str  # name of the whole graph
    spec: GraphSpec
    onnx: Path
    weights: tuple[str, ...]  # paths of the external weights relative to the `.onnx` file
    options: BuildOptions
    refusals: tuple[Refusal, ...]

    @property
    def file(self) -> str:
        """Name of the engine file."""
        return f"{self.spec.name}.engine"


def build_bundle(
    source: EngineBundle,
    folder: Path,
    options: BuildOptions,
    graphs: Sequence[str] = (),
    progress: ProgressListener = lambda progress: None,
    processes: int = 1,
    *,
    tried: bool = False,
) -> tuple[EngineBundle, list[BuildSummary]]:
    """Build engines of an opened ONNX bundle (of the named graphs, or of all) into a new folder.

    The folder is written atomically. Raises `JukeboxError` if it is not empty, and `EngineError` for GPUs and numbers
    of slots that a graph does not support. With several `processes` (see `processes_to_build`), `progress` is not
    called for the steps of an engine. `tried`: the caller has tried the options (`try_build`), so features need no
    trial here.
    """
    builds = [build for name in _select(source, graphs) for build in _plan(source, name, options)]
    load_flavour(options.target)
    if options.features and not tried:  # some need a GPU, which a builder says only at the end of a build
        try_build(builds[0].options, builds[0].spec)
    with atomic_directory(folder) as part:
        summaries: list[BuildSummary] = []
        progress(BuildProgress(0, len(builds)))
        for build, summary in zip(builds, _run(builds, part, progress, processes), strict=True):
            summaries.append(replace(summary, refused=tuple(str(refusal) for refusal in build.refusals)))
            progress(BuildProgress(len(summaries), len(builds)))
        _write_manifest(part, source, options, builds, summaries)
    return open_bundle(folder, verify_hashes=False), summaries


def _select(source: EngineBundle, graphs: Sequence[str]) -> list[str]:
    manifest = source.manifest
    if manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(f"{source.folder} holds {manifest.target} engines; build from an exported ONNX bundle.")
    if any(is_ready(entry) for entry in manifest.graphs.values()):
        raise EngineError(
            f"{source.folder} was made ready for ONNX Runtime on this kind of CPU, and its graphs are no longer plain "
            "ONNX; build from the bundle that `jukebox-deploy export` wrote."
        )
    return list(source.select(graphs))


def _plan(source: EngineBundle, graph: str, options: BuildOptions) -> list[_Build]:
    """Return the engines to build for one graph of a bundle."""
    entry, manifest = source.manifest.graphs[graph], source.manifest
    specs = [with_slots(piece.spec, options.slots) for piece in entry.pieces]
    left, refusals = divide_capabilities(entry.spec, Arithmetic(manifest.precision, manifest.linear_weights), options)
    mine = replace(options, compute_capabilities=left)
    return [
        _Build(graph, spec, source.folder / piece.file, beside, mine, refusals)
        for spec, piece in zip(specs, entry.pieces, strict=True)
        for beside in [tuple(os.path.relpath(name, os.path.dirname(piece.file) or ".") for name in entry.weights)]
    ]


def divide_capabilities(
    spec: GraphSpec, arithmetic: Arithmetic, options: BuildOptions
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """Return the GPUs that a graph is built for, and those that are left out.

    The GPUs are empty, which means the flavour's default, if the options name none and all default GPUs can run the
    graph. Raises `EngineError` if a GPU would be left out without permission, if none would be left, and if there are
    several for an engine that can be refitted.
    """
    asked = options.compute_capabilities or _default_capabilities(options)
    refusals = find_refusals(spec.kind, arithmetic, asked)
    left = _without(asked, refusals)
    if options.skip_refused:  # otherwise the builder names all such GPUs in one sentence
        refusals = (*refusals, *find_nameless(options.target, left))
        left = _without(asked, refusals)
    may_skip = options.skip_refused or not options.compute_capabilities
    if refusals and not (may_skip and left):
        nothing_left = " No GPU of --compute is left to build for." if options.skip_refused else ""
        raise EngineError(f"{spec.name}: {' '.join(map(str, refusals))}{nothing_left}")
    _require_one_gpu(spec, left, options)
    return (left if refusals else options.compute_capabilities), refusals


def _without(capabilities: Sequence[str], refusals: Sequence[Refusal]) -> tuple[str, ...]:
    refused = {refusal.capability for refusal in refusals}
    return tuple(capability for capability in capabilities if capability not in refused)


def _default_capabilities(options: BuildOptions) -> tuple[str, ...]:
    """Return the flavour's default GPUs; none for an engine that can be refitted, which has a single target."""
    return () if _features_for_one_gpu(options) else default_capabilities(options.target)


def _require_one_gpu(spec: GraphSpec, capabilities: Sequence[str], options: BuildOptions) -> None:
    """Raise `EngineError` for several GPUs if TensorRT-RTX can build for one only; its own message is obscure."""
    features = _features_for_one_gpu(options)
    if features and len(capabilities) > 1 and options.target is Target.TENSORRT_RTX:
        raise EngineError(
            f"{spec.name}: an engine with --feature {words_of(features)} is for one GPU only, and --compute asks "
            f"for {words_of(capabilities)}: name one, and build for each of the others into a separate folder."
        )


def _features_for_one_gpu(options: BuildOptions) -> list[Feature]:
    return [feature for feature in options.features if feature in (Feature.REFIT, Feature.STRIPPED)]


def with_slots(spec: GraphSpec, slots: Sequence[int]) -> GraphSpec:
    """Return the declaration of a graph whose engine has one profile for each of these numbers of slots.

    Raises `EngineError` for numbers outside the range of the graph.
    """
    if not slots or not spec.states:
        return spec
    declared = spec.range("B")
    if odd := [number for number in slots if not declared.minimum <= number <= declared.maximum]:
        raise EngineError(
            f"{spec.name} was exported for {declared.minimum} to {declared.maximum} slots, not for {odd[0]}: "
            "choose others, or export it again with --batch."
        )
    return spec.with_range(_narrowed(spec, declared, slots))


def _narrowed(spec: GraphSpec, declared: DimensionRange, slots: Sequence[int]) -> DimensionRange:
    """Return the range of slots for these profiles; a step runs all slots, a prefill may run any number of them.

    Both have one optimum, as in `declare_graphs`, because a bundle is opened only with tables that those declare.
    """
    fewest = slots[0] if spec.kind is GraphKind.STEP else declared.minimum
    return DimensionRange("B", fewest, min(max(declared.optimum, slots[0]), slots[-1]), slots[-1])


def _run(builds: Sequence[_Build], folder: Path, progress: ProgressListener, processes: int) -> Iterator[BuildSummary]:
    calls = [(build.onnx, build.spec, folder / build.file, build.options, build.weights) for build in builds]
    if processes > 1:
        yield from map_in_processes(build_engine, calls, processes)
        return
    for built, (build, call) in enumerate(zip(builds, calls, strict=True)):
        yield build_engine(*call, _of_engine(progress, BuildProgress(built, len(builds), build.spec.name)))


def _of_engine(progress: ProgressListener, begun: BuildProgress) -> Progress:
    def report(phase: str, step: int, steps: int) -> None:
        progress(replace(begun, phase=phase, done=min(1.0, step / max(1, steps))))

    return report


_SMALL_WEIGHTS = 256 << 20
"""Total bytes of weights up to which graphs are built in parallel; a build takes two to four times its weights."""


def processes_to_build(source: EngineBundle, graphs: Sequence[str] = ()) -> int:
    """Return the number of processes to build with: at most one per core and two graphs, and 1 for large weights."""
    entries = [source.manifest.graphs[name] for name in _select(source, graphs)]
    weights = source.manifest.bytes_of(name for entry in entries for name in entry.weights)
    return max(1, min(usable_cores(), len(entries) // 2)) if weights <= _SMALL_WEIGHTS else 1


def _write_manifest(
    folder: Path,
    source: EngineBundle,
    options: BuildOptions,
    builds: Sequence[_Build],
    summaries: Sequence[BuildSummary],
) -> None:
    tools = {**source.manifest.tools, str(options.target): flavour_version(options.target)}
    made: dict[str, list[tuple[_Build, BuildSummary]]] = {}
    for build, summary in zip(builds, summaries, strict=True):
        made.setdefault(build.graph, []).append((build, summary))
    built = {graph: _entry(source, graph, options, pieces) for graph, pieces in made.items()}
    write_manifest(folder, replace(source.manifest, target=options.target, graphs=built, tools=tools, parity=None))


def _entry(
    source: EngineBundle, graph: str, options: BuildOptions, pieces: Sequence[tuple[_Build, BuildSummary]]
) -> GraphEntry:
    exported = source.manifest.graphs[graph]
    (first, summary), summaries = pieces[0], [summary for _, summary in pieces]
    parts = tuple(GraphPart(build.spec, build.file) for build, _ in pieces) if exported.parts else ()
    return GraphEntry(
        spec=with_slots(exported.spec, options.slots),
        file="" if parts else first.file,
        compute_capabilities=summary.compute_capabilities,
        options={**exported.options, **_facts(source, exported, options, summaries)},
        parts=parts,
    )


def _facts(
    source: EngineBundle, exported: GraphEntry, options: BuildOptions, summaries: Sequence[BuildSummary]
) -> Mapping[str, Any]:
    """Return how the engines of a graph were built, and what they need. Parts use the same working memory in turn."""
    activations = [s.activation_bytes for s in summaries if s.activation_bytes is not None]
    kernels = [s.kernels for s in summaries if s.kernels is not None]
    return {
        **source.manifest.source_facts(exported.spec.name),
        "layers": sum(summary.layers for summary in summaries),
        "layers_of_parts": [summary.layers for summary in summaries] if exported.parts else [],
        "kernels": sum(kernels) if len(kernels) == len(summaries) else None,
        "activation_bytes": max(activations) if len(activations) == len(summaries) else None,
        "profiles": summaries[0].profiles,
        "slots": list(options.slots),
        "features": [str(feature) for feature in options.features],
        "refused": list(summaries[0].refused),
    }
