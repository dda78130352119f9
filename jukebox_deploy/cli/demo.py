"""The whole pipeline at small scale: `python -m jukebox_deploy.cli.demo --out demo`, which `make demo` calls."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.demo_stages import Demo
from jukebox_deploy.cli.demo_telling import Teller, heading
from jukebox_deploy.cli.main import in_sentences
from jukebox_deploy.cli.options import PATH
from jukebox_deploy.cli.tables import output_console
from jukebox_deploy.errors import JukeboxError
from jukebox_deploy.files import is_free
from jukebox_deploy.jobs.shipped_model import SHIPPED, shipped_model

if TYPE_CHECKING:
    from rich.console import Console

_MARK = ".jukebox-demo"


@click.command()
@click.option("--out", type=PATH, default="demo", show_default=True, help="Folder for the demo.")
@click.option(
    "--bundle",
    type=PATH,
    help="Checkpoint bundle trained on a corpus of `data synthesize`. [default: the model in a clone of the "
    "repository, else as --untrained]",
)
@click.option("--untrained", is_flag=True, help="Use the preset `tiny` with random weights.")
def demo(out: Path, bundle: Path | None, untrained: bool) -> None:
    """Import a checkpoint in OpenAI's layout, build and verify engines, and generate songs with them."""
    if bundle is not None and untrained:
        raise click.UsageError("--bundle and --untrained exclude each other.")
    begun = time.monotonic()
    console = output_console(120)
    with in_sentences():
        run = _open(out, Teller(console), None if untrained else bundle or _shipped(console))
        run.all_stages()
    heading(console, f"Done in {time.monotonic() - begun:.0f} s")
    run.show_next_steps()


def _shipped(console: Console) -> Path | None:
    """Return the model in a clone of the repository; without it, print what is used instead."""
    folder = shipped_model()
    if folder is None:
        console.print(
            f"{SHIPPED}: no trained model here. "
            "The preset `tiny` with random weights shows that everything works; it makes noise.",
            soft_wrap=True,
        )
    return folder


def _open(out: Path, teller: Teller, folder: Path | None) -> Demo:
    """Prepare the folder of a demo; nothing is written before the bundle has been opened."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    run = Demo(out, teller, None if folder is None else CheckpointBundle.open(folder))
    _prepare(out)
    return run


def _prepare(out: Path) -> None:
    """Make an empty folder and mark it as that of a demo; only marked folders are replaced."""
    if not is_free(out) and not (out / _MARK).exists():
        raise JukeboxError(f"{out}: already there, and not from a demonstration; choose another folder with --out.")
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / _MARK).touch()


if __name__ == "__main__":
    demo(prog_name="jukebox-deploy-demo")
