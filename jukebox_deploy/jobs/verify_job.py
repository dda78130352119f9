"""Verification: does an engine bundle compute the same as the checkpoint it was made from?

A ladder of comparisons with the PyTorch models: single graphs on random inputs, then windows as in sampling
(prefill, steps over given codes, greedy codes), then sound. If a bundle has quantised weights, the models get the
same weights, and activations are not rounded; the effect of quantisation on the checkpoint's own probabilities,
with the bundle as it runs in use, is a separate rung.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from jukebox_deploy.checkpoints.bundle import CheckpointBundle
from jukebox_deploy.contract import GraphSpec
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.device import NoDeviceError, Provider
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError
from jukebox_deploy.jobs.opening.same_model import require_same_model
from jukebox_deploy.jobs.verification.build import build_checks
from jukebox_deploy.jobs.verification.ladder import Ladder, VerifyRequest
from jukebox_deploy.jobs.verification.report import Check, CheckKind, VerifyReport, not_run
from jukebox_deploy.tool_versions import tool_versions

_WITH_ONNX = "With --onnx, the graphs that it was built from are checked instead."

_TOOLS = ("jukebox-deploy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")

Listener = Callable[[Check], None]


def verify_bundle(
    bundle: EngineBundle,
    checkpoint: CheckpointBundle,
    request: VerifyRequest | None = None,
    listener: Listener = lambda check: None,
    exported: EngineBundle | None = None,
) -> VerifyReport:
    """Compare an opened bundle, whose hashes have been checked, with the checkpoint it was made from.

    `exported`: the ONNX bundle that TensorRT engines were built from. It has the same quantised weights as the
    engines; if these cannot run here, its graphs are compared and built instead.
    The report includes failures; `VerifyReport.require` turns them into an error. Raises `EngineError` for another
    checkpoint or version, for an `exported` bundle that the engines were not built from, for graphs that the bundle
    lacks, and for engines that cannot run.
    """
    request = request or VerifyRequest()
    manifest = bundle.manifest
    require_same_model(bundle, checkpoint)
    specs = bundle.select(request.graphs)
    if exported is not None:
        _require_source(bundle, exported, specs)
    if request.provider != Provider.CPU and manifest.target is not Target.ONNXRUNTIME:
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


def _require_source(bundle: EngineBundle, exported: EngineBundle, names: Iterable[str]) -> None:
    """Raise `EngineError` unless the engines of these graphs were built from graphs of the exported bundle."""
    if exported.manifest.target is not Target.ONNXRUNTIME or bundle.manifest.target is Target.ONNXRUNTIME:
        raise EngineError("--onnx takes an ONNX bundle, and only for verifying TensorRT engines.")
    for name in names:
        if not exported.manifest.is_source_of(name, bundle.manifest.graphs[name]):
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
    """Climb the ladder. If the engines cannot run on this machine, yield the reason and check their graphs instead."""
    try:
        ladder = Ladder(bundle, checkpoint, request, exported)
    except NoDeviceError as error:
        if bundle.manifest.target is Target.ONNXRUNTIME:
            raise  # the requested provider is not available
        reason = str(error) if exported is not None else f"{str(error).rstrip('.')}. {_WITH_ONNX}"
        yield from (not_run(name, CheckKind.ENGINE, reason) for name in specs)
        if exported is not None:
            ladder = Ladder(exported, checkpoint, replace(request, tensorrt=None))
            yield from ladder.climb({name: exported.graphs[name] for name in specs})
            yield from build_checks(bundle, exported, specs)
    else:
        yield from ladder.climb(specs)
