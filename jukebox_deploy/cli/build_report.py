"""The report of `build`, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.tables import output_console, plain_table, print_table
from jukebox_deploy.engines.bundle import EngineBundle
from jukebox_deploy.engines.manifest import Target
from jukebox_deploy.errors import EngineError
from jukebox_deploy.listing import words_of
from jukebox_deploy.quantities import byte_size

if TYPE_CHECKING:
    from jukebox_deploy.engines.tensorrt.build import BuildSummary


def report_checked(bundle: EngineBundle, as_json: bool) -> None:
    """Report graphs for ONNX Runtime that were only checked. Raises `EngineError` for engines."""
    if bundle.manifest.target is not Target.ONNXRUNTIME:
        raise EngineError(
            f"{bundle.folder} holds {bundle.manifest.target} engines; ONNX Runtime needs the ONNX bundle."
        )
    if as_json:
        _print_json(bundle.folder, Target.ONNXRUNTIME, _graphs(bundle))
    else:
        click.echo(f"{bundle.folder}: all hashes match. ONNX Runtime runs it as it is{_more_to_do(bundle)}.")


def _more_to_do(bundle: EngineBundle) -> str:
    from jukebox_deploy.engines.onnxruntime.build import can_be_ready

    return "; with --out, a copy that opens sooner" if can_be_ready(bundle) else "; there is nothing to build"


def report_graphs(bundle: EngineBundle, as_json: bool) -> None:
    """Report newly made graphs for ONNX Runtime."""
    graphs = _graphs(bundle)
    if as_json:
        _print_json(bundle.folder, Target.ONNXRUNTIME, graphs)
        return
    fused, right = "integer weights fused", "size with weights"
    table = plain_table("graph", "files", right, fused, right={right}, wrapped={"files"})
    for graph in graphs:
        size = byte_size(graph["bytes"])
        table.add_row(graph["graph"], ", ".join(graph["files"]), size, "yes" if graph["ready"] else "")
    console = output_console(120)
    print_table(console, table)
    whole = byte_size(bundle.manifest.bytes_of(bundle.manifest.files))
    console.print(f"{bundle.folder} is for ONNX Runtime; graphs: {len(graphs)}, {whole} in all.")


def _graphs(bundle: EngineBundle) -> list[dict[str, Any]]:
    from jukebox_deploy.engines.onnxruntime.build import is_ready

    manifest = bundle.manifest
    return [
        {
            "graph": name,
            "files": list(entry.files),
            "bytes": manifest.bytes_of(entry.files),
            "ready": is_ready(entry),
        }
        for name, entry in manifest.graphs.items()
    ]


def report_engines(
    out: Path, target: Target, summaries: Sequence[BuildSummary], as_json: bool, *, exported: bool = False
) -> None:
    """Report newly built engines; `exported`: their graphs were exported by the same command."""
    if as_json:
        _print_json(out, target, [asdict(summary) for summary in summaries])
    else:
        _print_summaries(out, summaries, exported)


def _print_summaries(out: Path, summaries: Sequence[BuildSummary], exported: bool) -> None:
    numbers = ("layers", "kernels", "caches in place", "profiles", "engine", "activations", "seconds")
    table = plain_table("graph", *numbers, right=numbers)
    for summary in summaries:
        table.add_row(
            summary.graph,
            f"{summary.layers:,}",
            "" if summary.kernels is None else f"{summary.kernels:,}",
            str(summary.caches_in_place),
            str(summary.profiles),
            byte_size(summary.engine_bytes),
            byte_size(summary.activation_bytes),
            f"{summary.seconds:.1f}",
        )
    console = output_console(120)
    print_table(console, table)
    for remark, graphs in _remarks(summaries).items():
        console.print(f"{words_of(graphs)}: {remark}")
    peak = max((summary.process_peak_bytes or 0 for summary in summaries), default=0)
    # A process that exported the graphs before has had its peak perhaps then.
    included = ", that of the export included where one process does both" if exported else ""
    console.print(f"Peak memory of a building process: {byte_size(peak)}{included}.")
    engines = "1 engine" if len(summaries) == 1 else f"{len(summaries)} engines"
    console.print(f"{engines} in {out}; see them with: jukebox-deploy inspect {out}")


def _remarks(summaries: Sequence[BuildSummary]) -> dict[str, list[str]]:
    """Return the names of the graphs for each remark, because a GPU that has no name is left out of all of them."""
    graphs: dict[str, list[str]] = {}
    for summary in summaries:
        for remark in (*summary.refused, *summary.warnings):
            graphs.setdefault(remark, []).append(summary.graph)
    return graphs


def _print_json(folder: Path, target: Target, graphs: list[dict[str, Any]]) -> None:
    click.echo(json.dumps({"bundle": str(folder), "target": str(target), "graphs": graphs}, indent=2))
