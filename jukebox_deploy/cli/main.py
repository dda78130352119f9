"""The entry point: lazily imported commands, and the one place that turns exceptions into error messages."""

from __future__ import annotations

import errno
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from jukebox_deploy import __version__
from jukebox_deploy.cli.lazy_group import CommandEntry, LazyGroup
from jukebox_deploy.errors import JukeboxError, NotVerifiedError
from jukebox_deploy.optional_packages import packages_explained

COMMANDS: dict[str, CommandEntry] = {
    name: CommandEntry(f"jukebox_deploy.cli.{name.replace('-', '_')}_command:command", summary)
    for name, summary in {
        "import": "Read released checkpoints into a checkpoint bundle.",
        "export": "Export a checkpoint bundle to validated ONNX graphs.",
        "export-weights": "Write a checkpoint bundle in a released layout.",
        "build": "Build an engine bundle from a checkpoint or graphs.",
        "sample": "Generate songs with an engine bundle.",
        "align": "Find when each word of a song is sung.",
        "verify": "Compare an engine bundle with PyTorch, graph by graph.",
        "evaluate": "Measure how well a model reconstructs and predicts songs.",
        "evaluate-songs": "Check whether sampled songs match their labels.",
        "bench": "Measure speed, write reports and compare results.",
        "inspect": "Show what a bundle contains and how much memory it needs.",
        "data": "Prepare training data: synthesize, check and encode songs.",
        "train": "Train a VQ-VAE, a prior or an upsampler.",
        "presets": "List the known models and their sizes.",
    }.items()
}
"""All commands by name, in the order in which a user typically needs them."""


class NotVerified(click.ClickException):
    """The error shown after a verification in which nothing of the bundle ran."""

    exit_code = 3


class Interrupted(click.ClickException):
    """The error shown after Ctrl-C."""

    exit_code = 128 + signal.SIGINT


class Terminated(Interrupted):
    """The error shown after SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class _Termination:
    """A SIGTERM handler that does what Ctrl-C does, so that the same cleanup and saving take place.

    Schedulers send SIGTERM when they want the machine back.
    """

    received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        handler = signal.getsignal(signal.SIGINT)  # an engine build installs its own
        if not callable(handler):  # a shell script that runs this in the background makes it ignore Ctrl-C
            handler = signal.default_int_handler
        handler(signal.SIGINT, frame)


_termination = _Termination()


def failure_of(error: BaseException) -> click.ClickException | None:
    """Return the message for an expected error; `None` for bugs and for errors that click handles."""
    match error:
        case NotVerifiedError():
            return NotVerified(str(error))
        case JukeboxError():
            return click.ClickException(str(error))
        case KeyboardInterrupt():
            return (Terminated if _termination.received else Interrupted)(
                "interrupted. No half-written file is left; run the same command again, `sample` and `train` with "
                "--resume."
            )
        case OSError(errno=errno.ENOSPC):
            return click.ClickException(f"the disk is full{_of_file(error)}. Make room and run the same command again.")
        case MemoryError():
            return click.ClickException(f"the memory is too small{f': {error}' if str(error) else ''}.")
        case BrokenPipeError():
            return None
        case OSError():
            return click.ClickException(f"{error.strerror or error}{_of_file(error)}.")
    return None


def _of_file(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


@contextmanager
def in_sentences(debug: bool = False) -> Iterator[None]:
    """Turn expected errors and failures of the machine into one sentence each; with `debug`, after the traceback."""
    try:
        with packages_explained():
            yield
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        if debug:
            traceback.print_exc()
        raise failure from error


class RootGroup(LazyGroup):
    """The root group, which reports expected errors as a sentence instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command `in_sentences`."""
        with in_sentences(ctx.params["debug"]):
            return super().invoke(ctx)


@click.group(
    cls=RootGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="jukebox-deploy COMMAND -h shows the options of a command.",
)
@click.version_option(__version__, prog_name="jukebox-deploy")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
def cli(debug: bool) -> None:
    """Deploy Jukebox music models: import checkpoints, export ONNX graphs, build engines, generate songs."""


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _termination)
    cli(prog_name="jukebox-deploy")


if __name__ == "__main__":
    main()
