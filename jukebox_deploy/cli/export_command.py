"""`jukebox-deploy export`: a checkpoint bundle in, validated ONNX graphs out."""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.building_progress import building_progress
from jukebox_deploy.cli.export_options import cutting, export_options, quantisation
from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.options import PATH, OutFolder, comma_separated
from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.contract import LinearWeights, Precision
from jukebox_deploy.engines.bundle import is_engine_bundle
from jukebox_deploy.engines.quantised_weights import describe_prior, quantised_weights
from jukebox_deploy.quantities import byte_size
from jukebox_deploy.runtime.lengths import lowest_level, shortest_seconds

if TYPE_CHECKING:
    from jukebox_deploy.engines.manifest import Manifest
    from jukebox_deploy.jobs.export_job import ExportEvent, ExportRequest, Listener

_WORDS = {
    "trace": "traced",
    "quantise": "quantised",
    "validate": "validated",
    "quality": "measured",
    "tensorrt": "TensorRT-RTX",
}


def _slots(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, int, int]:
    """Parse `4` (a fixed number of slots) or `1,4,16` (minimum, optimum and maximum)."""
    try:
        numbers = [int(part) for part in value.split(",")]
        low, best, high = numbers * 3 if len(numbers) == 1 else numbers
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor MIN,BEST,MAX.") from None
    if not 1 <= low <= best <= high:
        raise click.BadParameter(f"{value!r}: give numbers from 1 on, in rising order.")
    return low, best, high


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--out",
    required=True,
    type=OutFolder(),
    metavar="DIR",
    help="Folder for the ONNX bundle, new or empty.",
)
@click.option(
    "--graphs",
    callback=comma_separated,
    metavar="step_2,prefill_2",
    help="Export only these graphs; a step always includes its prefill, and vice versa.",
)
@click.option(
    "--precision",
    type=click.Choice([str(p) for p in Precision]),
    default=str(Precision.FP32),
    show_default=True,
    help="Precision of the transformer stacks and their caches; everything else stays in fp32.",
)
@click.option(
    "--batch",
    callback=_slots,
    default="1,4,16",
    show_default=True,
    metavar="N|MIN,BEST,MAX",
    help="Number of slots (songs sampled at once): one fixed number, or a range and the number to optimise for.",
)
@export_options
@click.option(
    "--tensorrt-check",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Check that TensorRT-RTX can parse and build each graph; auto: small graphs only, if it is installed.",
)
@click.option("--processes", type=click.IntRange(min=1), help="Processes for tracing graphs. [default: one per core]")
@click.option("--force", is_flag=True, help="Replace the bundle in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundle: Path, out: Path, force: bool, as_json: bool, **choices: Any) -> None:
    """Export the graphs of the checkpoint bundle BUNDLE to ONNX.

    Each graph is checked, and compared with the PyTorch model at sizes other than those it was traced with.
    """
    say = _listener(as_json)
    with ProgressDisplay() as display, building_progress(display) as shown:
        from jukebox_deploy.checkpoints.bundle import CheckpointBundle
        from jukebox_deploy.jobs.export_job import export_bundle

        request = _request(choices)
        checkpoint = CheckpointBundle.open(bundle)
        with replacing(out, force=force, is_ours=is_engine_bundle, inputs=[bundle]) as fresh:
            manifest = export_bundle(checkpoint, fresh, request, say, shown.export)
    _report(out, manifest, as_json)


def _request(choices: Mapping[str, Any]) -> ExportRequest:
    from jukebox_deploy.graphs import GraphOptions
    from jukebox_deploy.jobs.export_job import ExportRequest
    from jukebox_deploy.jobs.tensorrt_check import TensorRtCheck

    return ExportRequest(
        GraphOptions(Precision(choices["precision"]), choices["batch"], choices["logits"]),
        choices["graphs"],
        choices["validate"],
        TensorRtCheck(choices["tensorrt_check"]),
        choices["processes"],
        quantisation=quantisation(choices),
        cutting=cutting(choices),
    )


def _listener(as_json: bool) -> Listener:
    """Return a listener that prints a line per finished action, to stderr if stdout is for JSON."""
    started = time.monotonic()

    def say(event: ExportEvent) -> None:
        line = f"{time.monotonic() - started:7.1f} s  {_WORDS[event.action]:>12}  {event.graph:<16} {event.detail}"
        # By its name, because click's own choice of a stream writes into the bars of a terminal, not above them.
        click.echo(line.rstrip(), file=sys.stderr if as_json else sys.stdout)

    return say


def _report(out: Path, manifest: Manifest, as_json: bool) -> None:
    if as_json:
        document = {
            "bundle": str(out),
            "precision": manifest.precision,
            "linear_weights": manifest.linear_weights,
            "graphs": list(manifest.graphs),
            "quantised_weights": quantised_weights(manifest),
        }
        click.echo(json.dumps({**document, "parity": manifest.parity}, indent=2))
        return
    size = manifest.bytes_of(manifest.files)
    weights = (
        "" if manifest.linear_weights is LinearWeights.AS_PRECISION else f" with {manifest.linear_weights} weights"
    )
    count = len(manifest.graphs)
    graphs = "1 graph" if count == 1 else f"{count} graphs"
    click.echo(f"{out}: {graphs} in {manifest.precision}{weights}, {byte_size(size)}.")
    for level, facts in quantised_weights(manifest).items():
        click.echo(describe_prior(level, facts))
    click.echo(f"Next: {', or '.join(next_commands(out, manifest))}.")


def next_commands(out: Path, manifest: Manifest) -> list[str]:
    """Return commands that work as they are: with a level that the exported graphs can sample, and a valid length."""
    bundle, config = shlex.quote(str(out)), manifest.config
    build = f"jukebox-deploy build {bundle} --out engines"
    lowest = lowest_level(config, manifest.graphs)
    if lowest is None:
        return [build]
    seconds = math.ceil(shortest_seconds(config, lowest))
    down_to = f" --lowest-level {lowest}" if lowest else ""
    return [f"jukebox-deploy sample {bundle} --seconds {seconds}{down_to} --out song", build]
