"""Commands that record in their results how they were made: command line, time and machine."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

import click


class RecordedCommand(click.Command):
    """A command that records its command line for the result file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Record the command line, then parse it as click does."""
        ctx.meta["words"] = [*ctx.command_path.split(), *args]
        return super().parse_args(ctx, args)


def words_of_command() -> str:
    """Return the command line of the running command."""
    return shlex.join(click.get_current_context().meta["words"])


def measurement_header() -> dict[str, Any]:
    """Return command line, time and machine of the running command as plain data, for the start of a result."""
    from jukebox_deploy.engines.installed_gpus import installed_gpus
    from jukebox_deploy.provenance import describe_computer, time_now

    machine = {**asdict(describe_computer()), "gpus": [asdict(gpu) for gpu in installed_gpus()]}
    return {"command": words_of_command(), "date": time_now(), "machine": machine}
