"""`jukebox-deploy verify`: compare an engine bundle with the checkpoint it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, OutFile, comma_separated, give_report, report_options, require_writable
from jukebox_deploy.cli.progress import progress_line
from jukebox_deploy.cli.tables import output_console, plain_table, print_table
from jukebox_deploy.cli.tensorrt_options import chosen_tensorrt, tensorrt_options
from jukebox_deploy.engines.device import Provider

if TYPE_CHECKING:
    from jukebox_deploy.engines.bundle import EngineBundle
    from jukebox_deploy.jobs.verification.report import Check, VerifyReport

PAGE_NAME = "verification.html"
"""The page that `--record` writes next to the manifest."""


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--against",
    required=True,
    metavar="CHECKPOINT",
    type=PATH,
    help="Checkpoint bundle that BUNDLE was exported from.",
)
@click.option("--graphs", callback=comma_separated, metavar="step_2,prefill_2", help="Compare only these graphs.")
@click.option(
    "--windows",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Positions in each prior's window at which to compare prefill and steps; 2 adds the end of the window.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Steps in each of these comparisons, at most to the end of the window. [default: a block and one more]",
)
@click.option(
    "--whole-windows",
    is_flag=True,
    help="Also step over a whole window of each prior, from its first position of music.",
)
@click.option(
    "--onnx",
    "exported",
    metavar="DIR",
    type=PATH,
    help="ONNX bundle that TensorRT engines were built from. It supplies their quantised weights and helps to find "
    "the layer in which a difference starts; if engines cannot run here, its graphs are compared and built instead.",
)
@click.option(
    "--provider",
    type=click.Choice([str(p) for p in Provider]),
    default=str(Provider.CPU),
    show_default=True,
    help="ONNX Runtime's execution provider, for ONNX graphs.",
)
@tensorrt_options
@report_options
@click.option("--page", type=OutFile(), help="Write the report as a page to this HTML file.")
@click.option("--record", is_flag=True, help="Store the report in BUNDLE: in its manifest, and as verification.html.")
def command(bundle: Path, against: Path, out: Path | None, as_json: bool, **choices: Any) -> None:
    """Compare the engine bundle BUNDLE with the PyTorch model, from file hashes to decoded sound.

    The exit code is 0 if everything that ran agrees within the tolerances, and 1 if not; the report then says what
    differs, and in which layer the difference starts. It is 3 if nothing in BUNDLE could run on this machine, even if
    the graphs of --onnx agree.
    """
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.engines.bundle import open_bundle
    from jukebox_deploy.jobs.verification.ladder import VerifyRequest
    from jukebox_deploy.jobs.verify_job import verify_bundle

    tensorrt = chosen_tensorrt(choices)
    request = VerifyRequest(
        **{name: choices[name] for name in ("graphs", "windows", "steps", "whole_windows", "provider")},
        tensorrt=tensorrt,
    )
    opened = open_bundle(bundle)
    if choices["record"]:
        require_writable(bundle, "write the report elsewhere, with --out and --page", "--record")
    exported = choices["exported"] and open_bundle(choices["exported"])
    with progress_line("comparing") as say:

        def listener(check: Check) -> None:
            say(f"{check.graph}: {check.kind} {check.where}")

        report = verify_bundle(opened, CheckpointBundle.open(against), request, listener, exported)
    give_report(report.to_json(), out, as_json, lambda: _print_report(report))
    _keep(opened, report, choices)
    report.require()
    report.require_engines()


def _keep(bundle: EngineBundle, report: VerifyReport, choices: Mapping[str, Any]) -> None:
    """Write the page and store the report in the bundle, as requested, whether or not the bundle passed."""
    from jukebox_deploy.cli.verify_page import write_page
    from jukebox_deploy.engines.bundle import write_parity

    if choices["page"] is not None:
        write_page(choices["page"], report)
    if choices["record"]:
        write_page(bundle.folder / PAGE_NAME, report)
        write_parity(bundle, {**(bundle.manifest.parity or {}), "verification": report.to_json()})


def _print_report(report: VerifyReport) -> None:
    table = plain_table("graph", "check", "at", "found", "limit", "", right={"limit"}, wrapped={"found"})
    for check in report.checks:
        table.add_row(check.graph, check.kind, check.where, *check.finding(), check.outcome)
    console = output_console()
    console.print(f"{report.bundle}: {len(report.files)} files, every hash matches; exported from this checkpoint.")
    print_table(console, table)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
    console.print(f"{len(report.checks)} checks: {counts}.")
