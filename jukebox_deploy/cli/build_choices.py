"""Turn the options of `build` into requests to export and build, and reject contradictory ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.export_options import cutting, quantisation
from jukebox_deploy.cli.options import comma_separated
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Manifest, Target
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.build import BuildOptions
    from jukebox_deploy.export.cutting import Cutting
    from jukebox_deploy.jobs.export_job import ExportRequest

QUANTISED = [str(w) for w in LinearWeights if w is not LinearWeights.AS_PRECISION]
"""Formats of weights that `--precision` also accepts."""


def compute_capabilities(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Split a list of compute capabilities, as a click callback; what is written like none of them is a usage error."""
    from jukebox_deploy.engines.tensorrt.capabilities import parse_capability

    found = comma_separated(context, parameter, value)
    try:
        for capability in found:
            parse_capability(capability)
    except EngineError as error:
        raise click.BadParameter(str(error), context, parameter) from error
    return found


def export_request(target: Target, choices: Mapping[str, Any]) -> ExportRequest:
    """Return what to export from a checkpoint. Raises `UsageError` and `ExportError` for contradictory options."""
    from jukebox_deploy.graphs import GraphOptions
    from jukebox_deploy.jobs.export_job import ExportRequest
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    precision, weights = _arithmetic(choices)
    default = Precision.FP32 if target is Target.ONNXRUNTIME else Precision.FP16
    return ExportRequest(
        GraphOptions(precision or default, _slot_range(target, choices["slots"]), choices["logits"]),
        choices["graphs"],
        choices["validate"],
        TensorRtCheck.NEVER,
        choices["processes"],
        quantisation=quantisation({**choices, "weights": weights}),
        cutting=cutting(choices),
    )


def _slot_range(target: Target, slots: Sequence[int]) -> tuple[int, int, int]:
    """Return the smallest, best and largest number of slots of the exported graphs.

    Graphs for TensorRT keep a variable number; `profile_ranges` says what a number fixed at one would cost.
    """
    from jukebox_deploy.graphs import GraphOptions

    if not slots:
        return GraphOptions().slots
    least, best, most = slots[0], slots[len(slots) // 2], slots[-1]
    return (least, best, most) if target is Target.ONNXRUNTIME else (1, best, max(2, most))


def _arithmetic(choices: Mapping[str, Any]) -> tuple[Precision | None, LinearWeights | None]:
    """Return the precision and the format of weights; `None` for what is not given."""
    precision, weights = choices["precision"], choices["weights"]
    if precision in QUANTISED:
        if weights not in (None, precision):
            raise click.UsageError(f"--precision {precision} and --weights {weights} contradict each other.")
        return None, LinearWeights(precision)
    return precision and Precision(precision), weights and LinearWeights(weights)


def build_options(target: Target, choices: Mapping[str, Any]) -> BuildOptions:
    """Return the options of the engine builder."""
    from jukebox_deploy.engines.tensorrt.build import BuildOptions, Feature

    return BuildOptions(
        target,
        choices["compute"],
        choices["skip_refused"],
        choices["slots"],
        tuple(Feature(feature) for feature in choices["features"]),
        choices["timing_caches"],
    )


def require_sense(choices: Mapping[str, Any], runs_graphs: bool) -> None:
    """Raise `UsageError` for options that would have no effect."""
    for_engines = ("compute", "skip_refused", "features", "timing_caches", "keep_onnx")
    if runs_graphs and (idle := [name for name in for_engines if choices[name]]):
        raise click.UsageError(f"{_spelled(idle)} is for engines of TensorRT; ONNX Runtime runs the graphs themselves.")
    if choices["skip_refused"] and not choices["compute"]:
        raise click.UsageError("--skip-refused is for the GPUs that --compute lists.")


def require_use_of_graphs(source: Path, choices: Mapping[str, Any], runs_graphs: bool, makes_copy: bool) -> None:
    """Raise `UsageError` for options that have no effect on graphs that are already exported."""
    if source.suffix == ".onnx" and choices["graphs"]:
        raise click.UsageError(f"{source} is one graph, so --graphs has nothing to choose: leave it out.")
    if not runs_graphs:
        return
    if idle := [name for name in ("slots", "processes") if choices[name]]:
        raise click.UsageError(
            f"{_spelled(idle)} is for an export or for engines of TensorRT; ONNX Runtime runs the graphs of {source} "
            "as they were exported."
        )
    if not makes_copy and (idle := [name for name in ("graphs", "force") if choices[name]]):
        raise click.UsageError(f"{_spelled(idle)} is for a copy that opens sooner, which needs --out DIR.")


def require_as_exported(bundle: EngineBundle, choices: Mapping[str, Any]) -> None:
    """Raise `EngineError` for export options that already exported graphs do not match."""
    manifest = bundle.manifest
    precision, weights = _arithmetic(choices)
    if precision is not None and weights is None:
        weights = LinearWeights.AS_PRECISION  # what an export with this --precision alone would store
    other_weights = weights not in (None, manifest.linear_weights)  # of --weights, or of --precision alone
    contradictions = {
        "precision": precision not in (None, manifest.precision) or (other_weights and not choices["weights"]),
        "weights": other_weights and choices["weights"] is not None,
        "parts": choices["cutting"] is not None and not _is_cut_so(manifest, choices["cutting"]),
        "no-validate": not choices["validate"],
        "no-logits": not choices["logits"],
        "no-measure-quality": not choices["measure_quality"],
        **{name: _is_given(choices[name]) for name in ("keep", "calibrate", "max_kl", "keep_onnx")},
    }
    if chosen := [name for name, contradicts in contradictions.items() if contradicts]:
        raise EngineError(
            f"{bundle.folder} was exported already, in {manifest.precision} with weights as {manifest.linear_weights}: "
            f"{_spelled(chosen)} can change nothing. Leave that out, build from the checkpoint bundle, or export again."
        )


def _is_cut_so(manifest: Manifest, wanted: Cutting) -> bool:
    stacks = [entry for entry in manifest.graphs.values() if entry.spec.states]
    priors = [manifest.config.prior(entry.spec.level) for entry in stacks]
    parts = [wanted.parts_of(prior, manifest.precision, manifest.linear_weights) for prior in priors]
    return parts == [len(entry.pieces) for entry in stacks]


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != ()


def _spelled(names: list[str]) -> str:
    return ", ".join("--" + name.replace("_", "-").replace("features", "feature") for name in names)
