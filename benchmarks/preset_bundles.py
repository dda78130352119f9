"""Engine bundles to measure, of checkpoints with random weights: made once in a work folder, then used again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jukebox_deploy
from jukebox_deploy.benchmarks.plan import GRAPHS, BenchmarkPlan, check_plan, graph_options
from jukebox_deploy.benchmarks.results import WorkloadKind
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_to_dict
from jukebox_deploy.contract import SLOT_GRAPHS, VQVAE_GRAPHS, LinearWeights
from jukebox_deploy.engines.bundle import is_engine_bundle
from jukebox_deploy.graphs import declare_graphs
from jukebox_deploy.presets import RELEASED_UPSAMPLERS, RELEASED_VQVAE, preset

if TYPE_CHECKING:
    from jukebox_deploy.jobs.quantised_export import QuantisationRequest

UPSAMPLER = "upsampler"
"""The released upsampler of level 0 alone."""

_SEED = 0
_OF_PRIORS = {WorkloadKind.STEP, WorkloadKind.PREFILL, WorkloadKind.CONDITION}


def system_to_measure(name: str, plan: BenchmarkPlan) -> JukeboxConfig:
    """A preset, or `upsampler`, with the priors that the plan's workloads need.

    Raises `ConfigError` for an unknown preset or level.
    """
    if name == UPSAMPLER:
        return JukeboxConfig(UPSAMPLER, RELEASED_VQVAE, RELEASED_UPSAMPLERS[:1])
    config = preset(name)
    if WorkloadKind.SONG in plan.workloads:
        return config
    if not _OF_PRIORS & set(plan.workloads):
        return dataclasses.replace(config, priors=())
    return config if plan.level is None else dataclasses.replace(config, priors=(config.prior(plan.level),))


def needed_graphs(config: JukeboxConfig, plan: BenchmarkPlan) -> tuple[str, ...]:
    """The graphs that the plan's workloads run, by name."""
    declared = declare_graphs(config)
    if WorkloadKind.SONG in plan.workloads:
        return tuple(declared)
    kinds = {GRAPHS[kind] for kind in plan.workloads}
    if kinds & set(SLOT_GRAPHS):
        kinds |= set(SLOT_GRAPHS)
    # Sound is measured at one level, priors at all unless one is named.
    wanted = {kind: {plan.level or 0} if kind in VQVAE_GRAPHS or plan.level is not None else None for kind in kinds}
    return tuple(
        name
        for name, spec in declared.items()
        if spec.kind in wanted and ((levels := wanted[spec.kind]) is None or spec.level in levels)
    )


def prepare_bundles(
    config: JukeboxConfig,
    plan: BenchmarkPlan,
    weights: Sequence[LinearWeights],
    workdir: Path,
    listener: Callable[[str], None] = lambda text: None,
    quality: bool = False,
) -> tuple[Path, list[Path]]:
    """The folders of a checkpoint bundle and of an engine bundle for each way to store weights.

    `quality`: whether the engine bundles' manifests say what integer weights cost, which takes a measurement.
    The folders' names depend on all that they are made from; what is in the work folder already is used again.
    Raises `ConfigError` or `EngineError` for what cannot be measured, before anything is made.
    """
    from jukebox_deploy.checkpoints.random_bundle import write_random_bundle

    check_plan(config, plan)
    checkpoint = workdir / f"checkpoint-{config.name}-{_digest(config_to_dict(config), _SEED)}"
    if not checkpoint.exists():
        listener(f"writing random weights of {config.name}")
        write_random_bundle(config, checkpoint, _SEED)
    return checkpoint, [
        _prepare_engine(checkpoint, config, plan, uncalibrated(stored, quality), listener) for stored in weights
    ]


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def uncalibrated(weights: LinearWeights, quality: bool = False) -> QuantisationRequest:
    """How random weights are stored; `quality`: whether the loss is measured."""
    from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest

    if weights is LinearWeights.AS_PRECISION:
        return QuantisationRequest()
    # How well random weights survive rounding changes no speed, and is no reason to refuse them.
    limit = 1e9 if quality else None
    return QuantisationRequest(weights, calibration=Calibration.NONE, max_kl=limit, judge_quality=quality)


_MAKERS = ("export/*.py", "jobs/*export*.py", "models/*.py")


@cache
def _exporter() -> str:
    """A hash of the code that makes graphs: after a change of it they are made anew."""
    package = Path(jukebox_deploy.__file__).parent
    sources = sorted(path for pattern in _MAKERS for path in package.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _prepare_engine(
    checkpoint: Path,
    config: JukeboxConfig,
    plan: BenchmarkPlan,
    integers: QuantisationRequest,
    listener: Callable[[str], None],
) -> Path:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    request = ExportRequest(
        graph_options(plan),
        needed_graphs(config, plan),
        validate=False,
        tensorrt=TensorRtCheck.NEVER,
        quantisation=integers,
    )
    tables = declare_graphs(config, request.declared_options)
    made_of = [tables[name].to_json() for name in request.graphs]
    digest = _digest(made_of, checkpoint.name, _exporter(), integers.judge_quality)
    out = checkpoint.parent / f"onnx-{config.name}-{integers.weights}-{digest}"
    if not is_engine_bundle(out):
        listener(f"exporting {config.name}, weights in {integers.weights}")
        export_bundle(CheckpointBundle.open(checkpoint), out, request)
    return out
