"""`jukebox-deploy build`: an engine bundle from exported graphs, ahead of time."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.options import comma_separated, progress_line
from jukebox_deploy.engines.bundle import MANIFEST_NAME, EngineBundle, open_bundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt_build import BuildSummary


@click.command()
@click.argument("source", metavar="BUNDLE_OR_ONNX", type=click.Path(path_type=Path))
@click.option(
    "--target",
    type=click.Choice([str(target) for target in Target]),
    default=str(Target.TENSORRT_RTX),
    show_default=True,
    help="What the engines are for.",
)
@click.option(
    "--compute",
    callback=comma_separated,
    metavar="8.6,8.9",
    help="Compute capabilities of the GPUs, for tensorrt-rtx. Without it: 8.0 and newer.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the engine bundle.")
@click.option("--graphs", callback=comma_separated, metavar="step_2,prefill_2", help="Build these graphs only.")
@click.option(
    "--processes", type=click.IntRange(min=1), help="Engines built at once. [default: one per core for small weights]"
)
@click.option("--force", is_flag=True, help="Replace the engine bundle in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    source: Path,
    target: str,
    compute: tuple[str, ...],
    out: Path | None,
    graphs: tuple[str, ...],
    processes: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Build engines of BUNDLE_OR_ONNX, a folder made by `export` or one .onnx file in it.

    TensorRT-RTX builds without a GPU, for the GPUs that --compute lists.
    """
    bundle, chosen = _open_source(source, graphs)
    if Target(target) is Target.ONNXRUNTIME:
        _report_ready(bundle, as_json)
        return
    if out is None:
        raise click.UsageError(f"--target {target} needs --out DIR, the folder of the engine bundle.")
    from jukebox_deploy.engines.tensorrt_build import BuildOptions, build_bundle, processes_to_build

    options = BuildOptions(Target(target), compute)
    ours = replacing(out, force=force, is_ours=_is_bundle, inputs=[bundle.folder])
    with ours, progress_line(as_json, "reading") as say:

        def progress(graph: str, phase: str, done: int, steps: int) -> None:
            say(f"{graph}: {phase} {done}/{steps}")

        at_once = processes or processes_to_build(bundle, chosen)
        _, summaries = build_bundle(bundle, out, options, chosen, progress, at_once)
    if as_json:
        summary = {"bundle": str(out), "target": target, "graphs": [asdict(summary) for summary in summaries]}
        click.echo(json.dumps(summary, indent=2))
    else:
        _print_summaries(out, summaries)


def _is_bundle(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file()


def _open_source(source: Path, graphs: tuple[str, ...]) -> tuple[EngineBundle, tuple[str, ...]]:
    """The bundle and the names of the graphs to build; the hashes of the whole bundle are checked."""
    if source.suffix == ".onnx":
        bundle = open_bundle(source.parent)
        named = tuple(name for name, entry in bundle.manifest.graphs.items() if entry.file == source.name)
        if not named:
            raise EngineError(f"{source} is not a graph of the bundle around it; export it again.")
        return bundle, named
    if (source / "config.json").is_file() and not _is_bundle(source):
        raise EngineError(
            f"{source} is a checkpoint bundle. Export it first: jukebox-deploy export {source} --out ONNX_FOLDER"
        )
    return open_bundle(source), graphs


def _report_ready(bundle: EngineBundle, as_json: bool) -> None:
    if bundle.manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {bundle.manifest.target} engines; ONNX Runtime needs the ONNX bundle."
        )
    if as_json:
        ready = {"bundle": str(bundle.folder), "target": str(Target.ONNXRUNTIME), "graphs": list(bundle.graphs)}
        click.echo(json.dumps(ready, indent=2))
    else:
        click.echo(f"{bundle.folder}: all hashes match. ONNX Runtime runs it as it is; there is nothing to build.")


def _print_summaries(out: Path, summaries: list[BuildSummary]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("graph", no_wrap=True)
    for heading in ("layers", "caches in place", "engine MiB", "activations MiB", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            summary.graph,
            f"{summary.layers:,}",
            str(summary.caches_in_place),
            _mebibytes(summary.engine_bytes),
            "" if summary.activation_bytes is None else _mebibytes(summary.activation_bytes),
            f"{summary.seconds:.1f}",
        )
    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for summary in summaries:
        for warning in summary.warnings:
            console.print(f"{summary.graph}: {warning}")
    console.print(f"{len(summaries)} engines in {out}; see them with: jukebox-deploy inspect {out}")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f}"
