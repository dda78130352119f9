"""`jukebox-deploy export-weights`: write a checkpoint bundle back into a released layout."""

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
    help="openai: OpenAI's .pth.tar files; hf: Hugging Face's safetensors shards with their index.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Output folder, new or empty.")
def command(bundle: Path, layout: str, out: Path) -> None:
    """Write the weights of a checkpoint bundle in a released layout, bit-identical to the imported ones."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.checkpoints.exporting import export_huggingface, export_openai

    export = export_openai if layout == "openai" else export_huggingface
    for path in export(CheckpointBundle.open(bundle), out):
        click.echo(path)
