"""Options for running engines, and preparation of engines with optional features (`build --feature`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import GraphEntry, GraphPart
from jukebox_deploy.engines.tensorrt.build import Feature
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.runtime import Platform


@dataclass(frozen=True)
class TensorRtOptions:
    """Options for running engines."""

    cuda_graph: bool | None = None  # record and replay steps; None: if the engine allows it
    host_code: bool = False  # allow engines that contain code for the CPU
    lean_runtime: Path | None = None  # library that runs version-compatible engines of another version
    weight_budget: int | None = None  # bytes of weights that each engine keeps on the GPU; it streams the rest
    weights_from: EngineBundle | None = None  # the ONNX bundle with the weights for stripped engines
    kernel_caches: Path | None = None  # folder for kernels that TensorRT-RTX compiles; None: compile them in every run

    def records(self, step: GraphEntry) -> bool | None:
        """Return whether to record the steps of an engine; `None`: if the runtime says that it is possible.

        An engine that can stream its weights allocates memory while it runs, which a CUDA graph does not allow.
        """
        return False if has_feature(step, Feature.WEIGHT_STREAMING) else self.cuda_graph


def has_feature(entry: GraphEntry, feature: Feature) -> bool:
    """Return whether the engines of a graph were built with a feature."""
    features = entry.options.get("features")
    return isinstance(features, list) and str(feature) in features


def require_features(bundle: EngineBundle, options: TensorRtOptions) -> None:
    """Raise `EngineError` for options that the engines were not built for, or if they need one that is missing."""
    asked = {
        Feature.VERSION_COMPATIBLE: ("--lean-runtime", options.lean_runtime is not None),
        Feature.WEIGHT_STREAMING: ("--weight-budget", options.weight_budget is not None),
        Feature.STRIPPED: ("--weights-from", options.weights_from is not None),
    }
    for name, entry in bundle.manifest.graphs.items():
        for feature, (option, is_given) in asked.items():
            if is_given and not has_feature(entry, feature):
                raise EngineError(
                    f"{bundle.folder}: {name} was not built for {option}; drop it, or build with --feature {feature}."
                )
        if options.cuda_graph and entry.spec.kind is GraphKind.STEP and has_feature(entry, Feature.WEIGHT_STREAMING):
            raise EngineError(
                f"{bundle.folder}: {name} was built to stream its weights, and such runs cannot be recorded; drop "
                f"--cuda-graph, or build without --feature {Feature.WEIGHT_STREAMING}."
            )
        if has_feature(entry, Feature.STRIPPED):
            _require_source(bundle, name, entry, options.weights_from)


def _require_source(bundle: EngineBundle, name: str, entry: GraphEntry, source: EngineBundle | None) -> None:
    """Raise `EngineError` unless the ONNX bundle is the one that the engines were built from."""
    if source is None:
        raise EngineError(
            f"{bundle.folder}: {name} has no weights; name the ONNX bundle that it was built from with --weights-from."
        )
    same_checkpoint = source.manifest.checkpoint == bundle.manifest.checkpoint
    if not (same_checkpoint and source.manifest.is_source_of(name, entry)):
        raise EngineError(
            f"{bundle.folder}: {name} was not built from {source.folder}, so it needs other weights. Name the ONNX "
            "bundle that it was built from with --weights-from."
        )


def prepare_engine(engine: Any, platform: Platform, options: TensorRtOptions, graph: str, piece: GraphPart) -> None:
    """Put weights into a stripped engine, or set the budget of one that streams them, before its context is created."""
    if options.weights_from is not None:
        _put_in_weights(engine, platform, _onnx_file(options.weights_from, graph, piece))
    if options.weight_budget is not None:
        budget = min(options.weight_budget, engine.streamable_weights_size)
        engine.weight_streaming_budget_v2 = budget
        what = f"{platform.target} cannot limit the weights of {graph} on the GPU to {budget} bytes"
        platform.require(engine.weight_streaming_budget_v2 == budget, what)  # setting the attribute never raises


def _onnx_file(source: EngineBundle, graph: str, piece: GraphPart) -> Path:
    """Return the ONNX file of the same part."""
    files: Mapping[str, Path] = {
        part.spec.name: source.folder / part.file for part in source.manifest.graphs[graph].pieces
    }
    return files[piece.spec.name]


def _put_in_weights(engine: Any, platform: Platform, onnx_file: Path) -> None:
    trt = platform.trt
    what = f"{platform.target} cannot put the weights of {onnx_file} into the engine"
    with platform.explaining_errors(what):
        refitter = trt.Refitter(engine, platform.logger)
        parser_refitter = trt.OnnxParserRefitter(refitter, platform.logger)
    platform.require(parser_refitter.refit_from_file(str(onnx_file)), what)
    platform.require(refitter.refit_cuda_engine(), what)
