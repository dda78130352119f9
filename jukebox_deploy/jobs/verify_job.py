"""Verification: is an engine bundle still the checkpoint that it was made from?

A ladder of comparisons with the eager models: single graphs on random inputs, then windows as they
are sampled (prefill, steps over given codes, greedy codes), then sound. Where a bundle has quantised
weights the models have the same ones there, and activations are not rounded; what they do to
the checkpoint's own probabilities, as the bundle runs, is a rung of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.device import NoDeviceError
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.engines.onnxruntime.sessions import CPU
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.eager import require_same_model, tool_versions
from jukebox_deploy.jobs.verification.build import build_checks
from jukebox_deploy.jobs.verification.ladder import Ladder, VerifyRequest
from jukebox_deploy.jobs.verification.report import Check, CheckKind, VerifyReport, not_run

_TOOLS = ("jukebox-deploy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")

Listener = Callable[[Check], None]


def verify_bundle(
    bundle: EngineBundle,
    checkpoint: CheckpointBundle,
    request: VerifyRequest | None = None,
    listener: Listener = lambda check: None,
    exported: EngineBundle | None = None,
) -> VerifyReport:
    """Compare an opened bundle (its hashes were checked) with the checkpoint it was made from.

    `exported`: the ONNX bundle that engines were built from. Its quantised weights are those in the engines; where
    those cannot run, its graphs are compared and built instead.
    The report holds failures too; `VerifyReport.require` turns them into an error. Raises `EngineError`
    for another checkpoint or version, other graphs, graphs that the bundle lacks, or an engine that cannot run.
    """
    request = request or VerifyRequest()
    manifest = bundle.manifest
    require_same_model(bundle, checkpoint)
    specs = _select(bundle, request.graphs)
    if exported is not None:
        _require_source(bundle, exported)
    if request.provider != CPU and manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {manifest.target} engines, which run without ONNX Runtime: drop --provider."
        )
    checks = []
    for check in _checks(bundle, checkpoint, request, specs, exported):
        listener(check)
        checks.append(check)
    return VerifyReport(
        bundle=str(bundle.folder),
        target=str(manifest.target),
        precision=str(manifest.precision),
        checkpoint=manifest.checkpoint,
        files={name: record.sha256 for name, record in manifest.files.items()},
        tools=tool_versions(*_TOOLS),
        checks=tuple(checks),
    )


def _select(bundle: EngineBundle, names: tuple[str, ...]) -> dict[str, GraphSpec]:
    if unknown := [name for name in names if name not in bundle.graphs]:
        raise EngineError(f"{bundle.folder} has no graphs {unknown}; it has {', '.join(bundle.graphs)}.")
    return {name: spec for name, spec in bundle.graphs.items() if not names or name in names}


def _require_source(bundle: EngineBundle, exported: EngineBundle) -> None:
    """Raise `EngineError` unless every engine was built from a graph of the exported bundle."""
    if exported.manifest.target is not Target.ONNXRUNTIME or bundle.manifest.target is Target.ONNXRUNTIME:
        raise EngineError("graphs to compare instead are those of an ONNX bundle, and for engines of TensorRT.")
    for name, entry in bundle.manifest.graphs.items():
        if not exported.manifest.is_source_of(name, entry):
            raise EngineError(
                f"{bundle.folder}: the engine of {name} was not built from the graph in {exported.folder}."
            )


def _checks(
    bundle: EngineBundle,
    checkpoint: CheckpointBundle,
    request: VerifyRequest,
    specs: Mapping[str, GraphSpec],
    exported: EngineBundle | None,
) -> Iterator[Check]:
    """The ladder. Where the engines cannot run on this machine a sentence why, and what their graphs allow."""
    try:
        ladder = Ladder(bundle, checkpoint, request, exported)
    except NoDeviceError as error:
        if bundle.manifest.target is Target.ONNXRUNTIME:
            raise  # a provider was asked for that is not there
        hint = "" if exported is not None else " With --onnx, the graphs that it was built from are checked instead."
        yield from (not_run(name, CheckKind.ENGINE, f"{error}{hint}") for name in specs)
        if exported is not None:
            ladder = Ladder(exported, checkpoint, replace(request, tensorrt=None))
            yield from ladder.climb({name: exported.graphs[name] for name in specs})
            yield from build_checks(bundle, exported, specs)
    else:
        yield from ladder.climb(specs)
