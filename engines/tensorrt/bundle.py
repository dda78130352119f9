"""From an ONNX bundle to an engine bundle."""

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
    find_refusals,
)
from jukebox_deploy.engines.tensorrt.flavour import Progress, flavour_version, load_flavour, no_progress
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import atomic_directory
from jukebox_deploy.processes import map_in_processes
from jukebox_deploy.threads import usable_cores

GraphProgress = Callable[[str, str, int, int], None]
"""Told of every finished step: graph, phase, steps done, steps in all."""


@dataclass(frozen=True)
class _Build:
    """One graph, or one part of a graph, about to be built."""

    graph: str  # whose entry it belongs to
    spec: GraphSpec
    onnx: Path
    weights: tuple[str, ...]  # as the `.onnx` file spells them, relative to itself
    options: BuildOptions
    refusals: tuple[Refusal, ...]

    @property
    def file(self) -> str:
        """Name of the engine."""
        return f"{self.spec.name}.engine"


def build_bundle(
    source: EngineBundle,
    folder: Path,
    options: BuildOptions,
    graphs: Sequence[str] = (),
    progress: GraphProgress | None = None,
    processes: int = 1,
) -> tuple[EngineBundle, list[BuildSummary]]:
    """Build engines of an opened ONNX bundle (of the named graphs, or of all) into a new folder.

    The folder appears when everything is built, or not at all. `JukeboxError` if it holds something already;
    `EngineError` for GPUs and numbers of slots that a graph was not made for.
    One of several `processes` (see `processes_to_build`) tells of finished engines, not of steps.
    """
    builds = [build for name in _select(source, graphs) for build in _plan(source, name, options)]
    load_flavour(options.target)
    with atomic_directory(folder) as part:
        summaries = []
        for build, summary in zip(builds, _run(builds, part, progress, processes), strict=True):
            summaries.append(replace(summary, refused=tuple(str(refusal) for refusal in build.refusals)))
            if progress is not None and processes > 1:
                progress(summary.graph, "built", len(summaries), len(builds))
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
    if unknown := [name for name in graphs if name not in manifest.graphs]:
        raise EngineError(f"{source.folder} has no graphs {unknown}; it has {list(manifest.graphs)}.")
    return [name for name in manifest.graphs if not graphs or name in graphs]


def _plan(source: EngineBundle, graph: str, options: BuildOptions) -> list[_Build]:
    """What is to be built for one graph of a bundle."""
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
    """The GPUs that a graph is built for, and those that are left out.

    Where none are named the flavour chooses (none), unless it would choose some that cannot run the graph.
    Raises `EngineError` where one would be left out that must not be, or all.
    """
    asked = options.compute_capabilities or _default_capabilities(options)
    refusals = find_refusals(spec.kind, arithmetic, asked)
    if not refusals:
        return options.compute_capabilities, ()
    refused = {refusal.capability for refusal in refusals}
    left = tuple(capability for capability in asked if capability not in refused)
    may_skip = options.skip_refused or not options.compute_capabilities
    if not (may_skip and left):
        raise EngineError(f"{spec.name}: " + " ".join(str(refusal) for refusal in refusals))
    return left, refusals


def _default_capabilities(options: BuildOptions) -> tuple[str, ...]:
    """What the flavour would choose; none where weights can be put in later, for it makes those for one target only."""
    alone = {Feature.REFIT, Feature.STRIPPED} & set(options.features)
    return () if alone else default_capabilities(options.target)


def with_slots(spec: GraphSpec, slots: Sequence[int]) -> GraphSpec:
    """The table of a graph whose engine has a profile for each of these numbers of slots.

    Raises `EngineError` for numbers that the graph does not take.
    """
    if not slots or not spec.states:
        return spec
    (taken,) = [r for r in spec.ranges if r.symbol == "B"]
    if odd := [number for number in slots if not taken.minimum <= number <= taken.maximum]:
        raise EngineError(
            f"{spec.name} was exported for {taken.minimum} to {taken.maximum} slots, not for {odd[0]}: "
            "choose others, or export it again with --batch."
        )
    return replace(spec, ranges=tuple(_narrowed(spec, r, slots) if r.symbol == "B" else r for r in spec.ranges))


def _narrowed(spec: GraphSpec, declared: DimensionRange, slots: Sequence[int]) -> DimensionRange:
    """A step runs all slots; a prefill runs some of them."""
    fewest = slots[0] if spec.kind is GraphKind.STEP else declared.minimum
    return DimensionRange("B", fewest, min(max(declared.optimum, fewest), slots[-1]), slots[-1])


def _run(
    builds: Sequence[_Build], folder: Path, progress: GraphProgress | None, processes: int
) -> Iterator[BuildSummary]:
    calls = [(build.onnx, build.spec, folder / build.file, build.options, build.weights) for build in builds]
    if processes > 1:
        yield from map_in_processes(build_engine, calls, processes)
        return
    for build, call in zip(builds, calls, strict=True):
        yield build_engine(*call, no_progress if progress is None else _of_graph(progress, build.spec.name))


def _of_graph(progress: GraphProgress, graph: str) -> Progress:
    return lambda phase, step, steps: progress(graph, phase, step, steps)


_SMALL_WEIGHTS = 256 << 20
"""Bytes of weights of all graphs up to which several are built at once; each takes two to four times its own."""


def processes_to_build(source: EngineBundle, graphs: Sequence[str] = ()) -> int:
    """As many as there are cores, if the weights are small, and at most one per two graphs."""
    entries = [source.manifest.graphs[name] for name in _select(source, graphs)]
    weights = sum(source.manifest.files[name].bytes for entry in entries for name in entry.weights)
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
    """How the engines of a graph were made, and what they need. Parts run in turn and in the same memory."""
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
