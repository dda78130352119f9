"""Checkpoint and engine bundles with random weights to measure: made once in a work folder, then reused."""

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
"""Name of a model that consists of the released upsampler of level 0, without other priors."""

_SEED = 0
_PRIOR_WORKLOADS = {WorkloadKind.STEP, WorkloadKind.PREFILL, WorkloadKind.CONDITION}


def system_to_measure(name: str, plan: BenchmarkPlan) -> JukeboxConfig:
    """Return a preset, or the model `UPSAMPLER`, with only the priors that the plan's workloads need.

    Raises `ConfigError` for an unknown preset or level.
    """
    if name == UPSAMPLER:
        return JukeboxConfig(UPSAMPLER, RELEASED_VQVAE, RELEASED_UPSAMPLERS[:1])
    config = preset(name)
    if WorkloadKind.SONG in plan.workloads:
        return config
    if not _PRIOR_WORKLOADS & set(plan.workloads):
        return dataclasses.replace(config, priors=())
    return config if plan.level is None else dataclasses.replace(config, priors=(config.prior(plan.level),))


def needed_graphs(config: JukeboxConfig, plan: BenchmarkPlan) -> tuple[str, ...]:
    """Return the names of the graphs that must be exported for the plan's workloads."""
    declared = declare_graphs(config)
    if WorkloadKind.SONG in plan.workloads:
        return tuple(declared)
    kinds = {GRAPHS[kind] for kind in plan.workloads}
    if kinds & set(SLOT_GRAPHS):
        kinds |= set(SLOT_GRAPHS)
    # The VQ-VAE is measured at one level, priors at all levels unless one is chosen; `None` stands for all levels.
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
    """Return the folders of a checkpoint bundle and of one engine bundle per weight format.

    Bundles that the work folder holds already are reused: a folder's name depends on everything that the bundle is made
    from. `quality`: also measure the quality of quantised weights and write it into the manifests. Raises `ConfigError`
    or `EngineError` if the plan cannot be measured on the model, before anything is made.
    """
    from jukebox_deploy.checkpoints.random_bundle import write_random_bundle

    check_plan(config, plan)
    made_from = (config_to_dict(config), _SEED, _source_digest(_CHECKPOINT_SOURCES))
    checkpoint = workdir / f"checkpoint-{config.name}-{_digest(*made_from)}"
    if not checkpoint.exists():
        listener(f"writing random weights of {config.name}")
        write_random_bundle(config, checkpoint, _SEED)
    return checkpoint, [
        _prepare_engine(checkpoint, config, plan, uncalibrated(weight_format, quality), listener)
        for weight_format in weights
    ]


def _digest(*parts: object) -> str:
    """Return a short hash of JSON data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def uncalibrated(weights: LinearWeights, quality: bool = False) -> QuantisationRequest:
    """Return how to quantise random weights: without calibration; `quality`: whether to measure the quality."""
    from jukebox_deploy.jobs.quantised_export import Calibration, QuantisationRequest

    if weights is LinearWeights.AS_PRECISION:
        return QuantisationRequest()
    # Poor quality is no reason to refuse random weights, because it does not affect the speed.
    limit = 1e9 if quality else None
    return QuantisationRequest(weights, calibration=Calibration.NONE, max_kl=limit, judge_quality=quality)


_PACKAGE = Path(jukebox_deploy.__file__).parent
_CHECKPOINT_SOURCES = ("checkpoints/random_bundle.py",)
_EXPORT_SOURCES = ("export/*.py", "jobs/*export*.py", "models/*.py")


@cache
def _source_digest(patterns: tuple[str, ...]) -> str:
    """Return a hash of the source code that makes a bundle, so that a change of it makes a new one."""
    sources = sorted(path for pattern in patterns for path in _PACKAGE.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _prepare_engine(
    checkpoint: Path,
    config: JukeboxConfig,
    plan: BenchmarkPlan,
    quantisation: QuantisationRequest,
    listener: Callable[[str], None],
) -> Path:
    """Return the engine bundle of a weight format; export it if it is not there yet."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    request = ExportRequest(
        graph_options(plan),
        needed_graphs(config, plan),
        validate=False,
        tensorrt=TensorRtCheck.NEVER,
        quantisation=quantisation,
    )
    tables = declare_graphs(config, request.declared_options)
    declarations = [tables[name].to_json() for name in request.graphs]
    digest = _digest(declarations, checkpoint.name, _source_digest(_EXPORT_SOURCES), quantisation.judge_quality)
    out = checkpoint.parent / f"onnx-{config.name}-{quantisation.weights}-{digest}"
    if not is_engine_bundle(out):
        listener(f"exporting {config.name}, weight format {quantisation.weights}")
        export_bundle(CheckpointBundle.open(checkpoint), out, request)
    return out
