"""`jukebox-deploy export-weights`: a checkpoint bundle back into a released layout."""

from __future__ import annotations

from pathlib import Path

import click

from jukebox_deploy.cli.options import PATH


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--layout",
    required=True,
    type=click.Choice(["openai", "hf"]),
    help="OpenAI's .pth.tar files, or Hugging Face's safetensors shards with their index.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="New or empty folder.")
def command(bundle: Path, layout: str, out: Path) -> None:
    """Write the weights of a checkpoint bundle in a released layout, bit for bit as they were imported."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.checkpoints.exporting import export_huggingface, export_openai

    export = export_openai if layout == "openai" else export_huggingface
    for path in export(CheckpointBundle.open(bundle), out):
        click.echo(path)
