"""The entry point: commands that are imported when they run, and the one place where errors become sentences."""

from __future__ import annotations

import errno
import signal
import traceback
from types import FrameType
from typing import Any

import click

from jukebox_deploy import __version__
from jukebox_deploy.cli.lazy_group import HELP, CommandEntry, LazyGroup
from jukebox_deploy.errors import JukeboxError

COMMANDS: dict[str, CommandEntry] = {
    name: CommandEntry(f"jukebox_deploy.cli.{name.replace('-', '_')}_command:command", summary)
    for name, summary in {
        "import": "Read released checkpoints into a checkpoint bundle.",
        "export": "Turn a checkpoint bundle into checked ONNX graphs.",
        "export-weights": "Write a checkpoint bundle in a released layout.",
        "build": "Build an engine bundle from a checkpoint or graphs.",
        "sample": "Make music with an engine bundle.",
        "verify": "Compare an engine bundle with PyTorch, graph by graph.",
        "evaluate": "Measure how well a model keeps and predicts songs.",
        "evaluate-songs": "Judge whether sampled songs are what was asked for.",
        "bench": "Measure speed, make reports of it, compare results.",
        "inspect": "Show what is in a bundle, and what memory it takes.",
        "data": "Make music to train on, and look at your own.",
        "train": "Train a VQ-VAE, a prior or an upsampler.",
        "presets": "List the known models with their sizes.",
    }.items()
}
"""All commands by name, in the order in which a user meets them."""

OPTIONAL_PACKAGES = {
    "onnxruntime": "cpu",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "scipy": "train",
    "tensorboard": "train",
}
"""The extra that installs each package that the bare installation lacks."""


class Interrupted(click.ClickException):
    """The sentence after Ctrl-C."""

    exit_code = 128 + signal.SIGINT


class Terminated(Interrupted):
    """The same after SIGTERM."""

    exit_code = 128 + signal.SIGTERM


class _Termination:
    """What SIGTERM does: the same as Ctrl-C, so that all that tidies up or saves after the one does after the other.

    A scheduler that wants the machine back sends it.
    """

    received = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        handler = signal.getsignal(signal.SIGINT)  # a build of engines has one of its own
        if not callable(handler):  # Ctrl-C is ignored where a shell script runs this in the background
            handler = signal.default_int_handler
        handler(signal.SIGINT, frame)


_termination = _Termination()


def failure_of(error: BaseException) -> click.ClickException | None:
    """The sentence for an error that has one; `None` for those that are bugs or are handled by click."""
    match error:
        case JukeboxError():
            return click.ClickException(str(error))
        case KeyboardInterrupt():
            return (Terminated if _termination.received else Interrupted)(
                "interrupted. No half-written file is left; run the same command again, `sample` and `train` with "
                "--resume."
            )
        case ModuleNotFoundError() if (package := (error.name or "").partition(".")[0]) in OPTIONAL_PACKAGES:
            extra = OPTIONAL_PACKAGES[package]
            return click.ClickException(f"this needs the package {package}: pip install 'jukebox-deploy[{extra}]'.")
        case OSError(errno=errno.ENOSPC):
            return click.ClickException(f"the disk is full{_of_file(error)}. Make room and run the same command again.")
        case BrokenPipeError():
            return None
        case OSError():
            return click.ClickException(f"{error.strerror or error}{_of_file(error)}.")
    return None


def _of_file(error: OSError) -> str:
    return f": {error.filename}" if error.filename else ""


class RootGroup(LazyGroup):
    """The group at the root, whose commands never end in a traceback for what has a sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong on purpose or by the machine's state becomes one sentence."""
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            failure = failure_of(error)
            if failure is None:
                raise
            if ctx.params["debug"]:
                traceback.print_exc()
            raise failure from error


@click.group(
    cls=RootGroup,
    entries=COMMANDS,
    context_settings=HELP,
    epilog="jukebox-deploy COMMAND -h shows the options of a command.",
)
@click.version_option(__version__, prog_name="jukebox-deploy")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Jukebox checkpoints in, music out through exported engines."""


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _termination)
    cli(prog_name="jukebox-deploy")


if __name__ == "__main__":
    main()
