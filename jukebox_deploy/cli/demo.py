"""The main job in small: `python -m jukebox_deploy.cli.demo --out demo`, which `make demo` calls."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.demo_stages import Demo
from jukebox_deploy.cli.demo_telling import Teller
from jukebox_deploy.cli.main import failure_of
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.jobs.shipped_model import SHIPPED, shipped_model

if TYPE_CHECKING:
    from rich.console import Console

_MARK = ".jukebox-demo"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="demo", show_default=True, help="Folder of the demo.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Trained on a corpus of `data synthesize`. [default: the model that comes with a clone, else as --untrained]",
)
@click.option("--untrained", is_flag=True, help="`tiny`, with random weights.")
def demo(out: Path, bundle: Path | None, untrained: bool) -> None:
    """From a checkpoint in OpenAI's layout to engines, verified, and the music that they make."""
    from rich.console import Console

    if bundle is not None and untrained:
        raise click.UsageError("--bundle and --untrained exclude each other.")
    begun = time.monotonic()
    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        run = _open(out, Teller(console), None if untrained else bundle or _shipped(console))
        run.all_stages()
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error
    console.rule(f"[bold]Done in {time.monotonic() - begun:.0f} s", align="left")
    run.show_next_steps()


def _shipped(console: Console) -> Path | None:
    """The model that comes with a clone; without it, say what is taken instead."""
    folder = shipped_model()
    if folder is None:
        console.print(
            f"{SHIPPED}: no trained model here. "
            "The preset `tiny` with random weights shows that everything works; it makes noise.",
            markup=False,
            soft_wrap=True,
        )
    return folder


def _open(out: Path, teller: Teller, folder: Path | None) -> Demo:
    """A demonstration in a folder that is ready for it. Nothing is written before the bundle was found to be one."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    run = Demo(out, teller, None if folder is None else CheckpointBundle.open(folder))
    _prepare(out)
    return run


def _prepare(out: Path) -> None:
    """An empty folder, marked as a demonstration's; only such a one is replaced."""
    if out.exists() and not (out / _MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise JukeboxError(f"{out}: already there, and not from a demonstration; choose another folder with --out.")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARK).touch()


if __name__ == "__main__":
    demo(prog_name="jukebox-deploy-demo")
