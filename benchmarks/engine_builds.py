"""Measure the building of TensorRT-RTX engines for one prior's step, with random weights.

    python -m jukebox_deploy.benchmarks.engine_builds --preset 1b_lyrics --weights precision int8 int4 fp8 --work DIR

Weights are generated tensor by tensor while the graphs are written, so no checkpoint is stored. The weight formats are
measured one after the other. Export and build each run in a separate process, and their files are deleted before the
next format begins. A build that fails, for instance because memory runs out, is recorded with the reason. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jukebox_deploy.benchmarks.preset_bundles import uncalibrated
from jukebox_deploy.benchmarks.process_memory import memory_field, run_watched
from jukebox_deploy.benchmarks.scripts import in_sentences, new_record, number_from, result_file, script_parser
from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.contract import ITEM_BYTES, GraphKind, LinearWeights, Precision, graph_name
from jukebox_deploy.costs import linear_weight_bytes
from jukebox_deploy.errors import EngineError
from jukebox_deploy.files import scratch_folder, write_json_atomic
from jukebox_deploy.graphs import GraphOptions
from jukebox_deploy.parameter_counts import (
    attention_layers,
    count_parameters,
    count_weights,
    mlp_layers,
    prior_parameters,
)
from jukebox_deploy.presets import preset
from jukebox_deploy.quantities import byte_size

_MODULE = "jukebox_deploy.benchmarks.engine_builds"
_EXPORT, _BUILD = "export", "build"
_ENGINE_SHARE = 1.3  # bytes of engines over bytes of weights; measured: 1.01 to 1.08 (released upsampler), 1.2 (mid)
_SPARE = 1 << 30  # bytes of the disk that stay free


@dataclass(frozen=True)
class BuildCase:
    """A build to measure: the step of one prior, in one weight format."""

    preset: str
    level: int
    weights: LinearWeights
    parts: int  # number of engines that the step is divided into
    capability: str  # compute capability of the GPU, such as "8.9"

    @property
    def step(self) -> str:
        """The name of the graph, for instance `step_2`."""
        return graph_name(GraphKind.STEP, self.level)

    @property
    def config(self) -> JukeboxConfig:
        """The configuration, with this prior only. Raises `ConfigError` for an unknown preset or level."""
        config = preset(self.preset)
        return dataclasses.replace(config, priors=(config.prior(self.level),))


def stored_bytes(case: BuildCase) -> int:
    """Return the bytes of a step's stored weights, computed from the configuration alone.

    Matrices of linear layers are in the weight format, everything else is in float32.
    """
    (prior,) = case.config.priors
    layers, counts = attention_layers(prior.transformer) + mlp_layers(prior.transformer), prior_parameters(prior)
    vectors = count_parameters(layers) - count_weights(layers) + counts.norms
    embeddings = counts.token_embedding + counts.output + counts.position_embedding
    matrices = sum(linear_weight_bytes(layer, Precision.FP16, case.weights) for layer in layers)
    return matrices + (vectors + embeddings) * ITEM_BYTES["float32"]


def require_room(case: BuildCase, folder: Path) -> None:
    """Raise `EngineError` unless the disk of a folder has room for the weights and the engines of a case."""
    needed = round((1 + _ENGINE_SHARE) * stored_bytes(case)) + _SPARE
    if (free := shutil.disk_usage(folder).free) < needed:
        raise EngineError(
            f"{folder} has too little room: {case.preset} with {case.weights} weights takes about {byte_size(needed)}, "
            f"and {byte_size(free)} are free. Name another folder with --work."
        )


def _export(case: BuildCase, folder: Path) -> dict[str, Any]:
    """Export the step with random weights; return the bytes of the weights."""
    from jukebox_deploy.checkpoints.random_bundle import RandomCheckpoint
    from jukebox_deploy.export.cutting import Cutting
    from jukebox_deploy.jobs.export_job import ExportRequest, export_bundle
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    request = ExportRequest(
        GraphOptions(Precision.FP16),
        (case.step,),
        validate=False,
        tensorrt=TensorRtCheck.NEVER,
        processes=1,
        quantisation=uncalibrated(case.weights),
        cutting=Cutting(case.parts),
    )
    manifest = export_bundle(RandomCheckpoint.of(case.config), folder / _EXPORT, request)
    return {"weight_bytes": manifest.bytes_of(manifest.graphs[case.step].weights)}


def _build(case: BuildCase, folder: Path) -> dict[str, Any]:
    """Build the engines of the exported step; return a summary of each."""
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.engines.tensorrt.build import BuildOptions
    from jukebox_deploy.engines.tensorrt.bundle import build_bundle

    source = open_bundle(folder / _EXPORT, verify_hashes=False)
    options = BuildOptions(compute_capabilities=(case.capability,))
    _, summaries = build_bundle(source, folder / _BUILD, options, (case.step,))
    shown = ("graph", "engine_bytes", "layers", "kernels", "activation_bytes")
    engines = [{name: getattr(s, name) for name in shown} | {"seconds": round(s.seconds, 1)} for s in summaries]
    return {"engines": engines}


_STAGES: dict[str, Callable[[BuildCase, Path], dict[str, Any]]] = {_EXPORT: _export, _BUILD: _build}


def _run_stage(stage: str, case: BuildCase, folder: Path) -> None:
    """Run a stage in this process and print its result and the process's peak memory as one line of JSON."""
    found = _STAGES[stage](case, folder)
    print(json.dumps({**found, "peak_rss_bytes": memory_field("VmHWM")}))


def _measure_stage(stage: str, case: BuildCase, folder: Path) -> dict[str, Any]:
    """Run a stage in a separate process; return its result, memory and time. Raises `EngineError` if it fails."""
    arguments = [_MODULE, "--stage", stage, "--case", json.dumps(config_to_dict(case)), "--work", str(folder)]
    watched = run_watched([sys.executable, "-m", *arguments], f"the {stage} of {case.step}")
    return {
        **json.loads(watched.output.splitlines()[-1]),
        "peak_tree_rss_bytes": watched.peak_tree_bytes,
        "wall_seconds": round(watched.wall_seconds, 1),
        "cpu_seconds": round(watched.cpu_seconds, 1),
    }


def measure(case: BuildCase, work: Path) -> dict[str, Any]:
    """Export and build one case in a temporary folder below `work`; return the results of both stages.

    If a stage fails, `failed` holds the reason. Raises `EngineError` if the disk lacks room.
    """
    require_room(case, work)
    result: dict[str, Any] = {**config_to_dict(case), "precision": str(Precision.FP16)}
    with scratch_folder(work / "engine-builds") as folder:
        for stage in _STAGES:
            try:
                result[stage] = _measure_stage(stage, case, folder)
            except EngineError as error:
                return {**result, "failed": str(error)}
    return result


def _parser() -> argparse.ArgumentParser:
    parser = script_parser(_MODULE, __doc__)
    parser.add_argument("--preset", default="1b_lyrics", help="sizes of the model (default: %(default)s)")
    parser.add_argument("--level", type=number_from(0), help="level of the prior (default: the top one)")
    choices = [str(weights) for weights in LinearWeights]
    parser.add_argument("--weights", nargs="+", choices=choices, default=["precision"], help="weight formats")
    parser.add_argument(
        "--parts", type=number_from(1), default=1, help="number of engines that the step is divided into"
    )
    parser.add_argument("--compute", default="8.9", help="compute capability to build for (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="folder for temporary files")
    parser.add_argument("--out", type=Path, help="result file (default: in benchmarks/results)")
    parser.add_argument("--stage", choices=list(_STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script; the docstring of the module describes it."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    if options.stage:
        _run_stage(options.stage, config_from_dict(BuildCase, json.loads(options.case), "case"), options.work)
        return
    level = max(prior.level for prior in preset(options.preset).priors) if options.level is None else options.level
    cases = [
        BuildCase(options.preset, level, LinearWeights(w), options.parts, options.compute) for w in options.weights
    ]
    out = options.out or result_file(f"engine-build-{options.preset}-level-{level}")
    options.work.mkdir(parents=True, exist_ok=True)
    record = new_record(_MODULE, words, [])
    for case in cases:
        record["results"].append(measure(case, options.work))
        write_json_atomic(out, record)  # after each case, because the next one may crash the machine
        print(json.dumps(record["results"][-1]), flush=True)


if __name__ == "__main__":
    main()
