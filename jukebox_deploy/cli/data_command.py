"""`jukebox-deploy data`: music to train on."""

from __future__ import annotations

import click

from jukebox_deploy.cli.lazy_group import CommandEntry, LazyGroup

COMMANDS = {
    "synthesize": CommandEntry("jukebox_deploy.cli.data_synthesize_command:synthesize", "Make a corpus of songs."),
    "check": CommandEntry("jukebox_deploy.cli.data_check_command:check", "Tell what of a folder can be trained on."),
    "encode": CommandEntry(
        "jukebox_deploy.cli.data_encode_command:encode", "Turn songs into codes, to train priors on."
    ),
    "requests": CommandEntry(
        "jukebox_deploy.cli.data_requests_command:requests", "Ask for songs like those of a corpus."
    ),
}
"""All commands of the group."""


@click.group(cls=LazyGroup, entries=COMMANDS, epilog="jukebox-deploy data COMMAND -h shows the options of a command.")
def command() -> None:
    """Make music to train on, and look at your own."""
