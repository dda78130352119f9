"""`jukebox-deploy build`: build an engine bundle ahead of time, from a checkpoint or from exported graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.build_choices import (
    QUANTISED,
    build_options,
    compute_capabilities,
    export_request,
    require_as_exported,
    require_sense,
    require_use_of_graphs,
)
from jukebox_deploy.cli.build_report import report_checked, report_engines, report_graphs
from jukebox_deploy.cli.building_progress import building_progress
from jukebox_deploy.cli.export_options import export_options
from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.options import PATH, OutFolder, comma_separated, numbers_from
from jukebox_deploy.cli.progress import ProgressDisplay, progress_line
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.bundle import EngineBundle, is_engine_bundle, open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.build import BuildSummary

_FEATURES = ("weight-streaming", "version-compatible", "refit", "stripped")


@click.command()
@click.argument("source", metavar="BUNDLE_OR_ONNX", type=PATH)
@click.option(
    "--target",
    type=click.Choice([str(target) for target in Target]),
    default=str(Target.TENSORRT_RTX),
    show_default=True,
    help="What will run the engines.",
)
@click.option(
    "--compute",
    callback=compute_capabilities,
    metavar="8.6,8.9",
    help="Compute capabilities of the GPUs to build for, with tensorrt-rtx. [default: all from 8.0 that can run the "
    "graphs]",
)
@click.option("--skip-refused", is_flag=True, help="Skip, and report, GPUs of --compute that cannot be built for.")
@click.option(
    "--precision",
    type=click.Choice([*map(str, Precision), *QUANTISED]),
    help="Precision of the transformer stacks when a checkpoint is exported. int8, int4 and fp8 mean the default "
    "precision with these --weights. [default: fp16; fp32 for onnxruntime]",
)
@export_options
@click.option(
    "--slots",
    callback=numbers_from(1),
    metavar="1,4,16",
    help="Numbers of slots (songs sampled at once) that TensorRT optimises kernels for. [default: 1 to 16, optimised "
    "for 4]",
)
@click.option(
    "--feature",
    "features",
    type=click.Choice(_FEATURES),
    multiple=True,
    help="Feature to build into the engines; may be repeated.",
)
@click.option(
    "--timing-caches", type=PATH, metavar="DIR", help="Folder that keeps kernel timings of tensorrt for later builds."
)
@click.option(
    "--keep-onnx",
    type=OutFolder(),
    metavar="DIR",
    help="Folder to keep the ONNX graphs exported from a checkpoint.",
)
@click.option("--out", type=OutFolder(), help="Folder for the engine bundle.")
@click.option("--graphs", callback=comma_separated, metavar="step_2,prefill_2", help="Build only these graphs.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Engines built in parallel. [default: one per core if weights are small]",
)
@click.option("--force", is_flag=True, help="Replace the engine bundle in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(source: Path, target: str, out: Path | None, force: bool, as_json: bool, **choices: Any) -> None:
    """Build engines from BUNDLE_OR_ONNX.

    BUNDLE_OR_ONNX is a checkpoint bundle made by `import` (which is exported first), an ONNX bundle made by `export`,
    or one .onnx file in that. TensorRT-RTX needs no GPU to build: it builds for the GPUs listed with --compute.
    """
    runs_graphs = Target(target) is Target.ONNXRUNTIME
    require_sense(choices, runs_graphs)
    if _is_checkpoint(source):
        _build_checkpoint(source, _required(out, target), Target(target), force, as_json, choices)
        return
    require_use_of_graphs(source, {**choices, "force": force}, runs_graphs, makes_copy=out is not None)
    bundle, chosen = _open_source(source, choices["graphs"])
    require_as_exported(bundle, choices)
    if runs_graphs and out is None:
        report_checked(bundle, as_json)
        return
    if runs_graphs:
        report_graphs(_make_ready(bundle, chosen, _required(out, target), force), as_json)
        return
    from jukebox_deploy.engines.tensorrt.bundle import build_bundle, processes_to_build

    out = _required(out, target)
    ours = replacing(out, force=force, is_ours=is_engine_bundle, inputs=[bundle.folder])
    with ours as fresh, ProgressDisplay() as display, building_progress(display) as shown:
        at_once = choices["processes"] or processes_to_build(bundle, chosen)
        options = build_options(Target(target), choices)
        _, summaries = build_bundle(bundle, fresh, options, chosen, shown.build, at_once)
    report_engines(out, Target(target), summaries, as_json)


def _build_checkpoint(
    source: Path, out: Path, target: Target, force: bool, as_json: bool, choices: Mapping[str, Any]
) -> None:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.jobs.build_job import BuildListener, CheckpointBuild, build_from_checkpoint
    from jukebox_deploy.jobs.export_job import export_bundle

    checkpoint = CheckpointBundle.open(source)
    request = export_request(target, choices)
    build = CheckpointBuild(request, build_options(target, choices), choices["keep_onnx"])
    summaries: list[BuildSummary] = []
    build.require_apart(out)  # the build itself sees only the folder that will replace it
    ours = replacing(out, force=force, is_ours=is_engine_bundle, inputs=[source])
    with ours as fresh, ProgressDisplay() as display, building_progress(display) as shown:
        if target is Target.ONNXRUNTIME:
            export_bundle(checkpoint, fresh, request, progress=shown.export)
        else:
            listener = BuildListener(shown.export, shown.build)
            _, summaries = build_from_checkpoint(checkpoint, fresh, build, choices["processes"], listener)
    if target is Target.ONNXRUNTIME:
        report_graphs(open_bundle(out, verify_hashes=False), as_json)
    else:
        report_engines(out, target, summaries, as_json, exported=True)


def _make_ready(source: EngineBundle, graphs: tuple[str, ...], out: Path, force: bool) -> EngineBundle:
    from jukebox_deploy.engines.onnxruntime.build import build_ready_bundle

    ours = replacing(out, force=force, is_ours=is_engine_bundle, inputs=[source.folder])
    with ours as fresh, progress_line("reading") as say:
        build_ready_bundle(source, fresh, graphs, lambda graph: say(f"{graph}: fusing integer weights"))
    return open_bundle(out, verify_hashes=False)


def _required(out: Path | None, target: str) -> Path:
    if out is None:
        raise click.UsageError(f"--target {target} needs --out DIR, the folder of the engine bundle.")
    return out


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not is_engine_bundle(folder)


def _open_source(source: Path, graphs: tuple[str, ...]) -> tuple[EngineBundle, tuple[str, ...]]:
    """Return the bundle and the names of the graphs to build; checks the hashes of the whole bundle."""
    if source.suffix != ".onnx":
        return open_bundle(source), graphs
    bundle = open_bundle(source.parent)
    entries = bundle.manifest.graphs.items()
    named = tuple(name for name, entry in entries if source.name in [piece.file for piece in entry.pieces])
    if not named:
        raise EngineError(f"{source} is not a graph of the bundle around it; export it again.")
    return bundle, named
