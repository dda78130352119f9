"""`jukebox-deploy bench`: measure speed, report and compare results."""

from __future__ import annotations

import click

from jukebox_deploy.cli.lazy_group import CommandEntry, LazyGroup

COMMANDS = {
    "run": CommandEntry("jukebox_deploy.cli.bench_run_command:run", "Measure engines against PyTorch."),
    "growth": CommandEntry(
        "jukebox_deploy.cli.bench_growth_command:growth", "Measure how cost grows along one dimension."
    ),
    "report": CommandEntry("jukebox_deploy.cli.bench_report_command:report", "Make an HTML page from result files."),
    "compare": CommandEntry("jukebox_deploy.cli.bench_report_command:compare", "Show what got faster or slower."),
}
"""All commands of the group."""


@click.group(cls=LazyGroup, entries=COMMANDS, epilog="jukebox-deploy bench COMMAND -h shows the options of a command.")
def command() -> None:
    """Measure speed, write reports and compare results."""
