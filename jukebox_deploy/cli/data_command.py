"""`jukebox-deploy data`: prepare training data."""

from __future__ import annotations

import click

from jukebox_deploy.cli.lazy_group import CommandEntry, LazyGroup

COMMANDS = {
    "synthesize": CommandEntry("jukebox_deploy.cli.data_synthesize_command:synthesize", "Generate a corpus of songs."),
    "check": CommandEntry(
        "jukebox_deploy.cli.data_check_command:check", "Check which songs of a folder can be used for training."
    ),
    "encode": CommandEntry(
        "jukebox_deploy.cli.data_encode_command:encode", "Encode songs into codes, to train priors on."
    ),
    "requests": CommandEntry(
        "jukebox_deploy.cli.data_requests_command:requests", "Write requests for songs like those of a corpus."
    ),
}
"""All commands of the group."""


@click.group(cls=LazyGroup, entries=COMMANDS, epilog="jukebox-deploy data COMMAND -h shows the options of a command.")
def command() -> None:
    """Prepare training data: synthesize a corpus, or check and encode your own songs."""
