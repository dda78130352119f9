"""`jukebox-deploy bench`: measuring, reports of measurements, and their comparison."""

from __future__ import annotations

import click

from jukebox_deploy.cli.lazy_group import CommandEntry, LazyGroup

COMMANDS = {
    "run": CommandEntry("jukebox_deploy.cli.bench_run_command:run", "Measure engines against PyTorch."),
    "growth": CommandEntry("jukebox_deploy.cli.bench_growth_command:growth", "Measure how cost grows with a size."),
    "report": CommandEntry("jukebox_deploy.cli.bench_report_command:report", "Make a page of result files."),
    "compare": CommandEntry("jukebox_deploy.cli.bench_report_command:compare", "Say what got faster or slower."),
}
"""All commands of the group."""


@click.group(cls=LazyGroup, entries=COMMANDS, epilog="jukebox-deploy bench COMMAND -h shows the options of a command.")
def command() -> None:
    """Measure speed, make reports of it, and compare results."""
