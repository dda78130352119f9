"""`jukebox-deploy data encode`: songs as codes, ahead of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from jukebox_deploy.cli.options import PATH, metadata_option, threads_option
from jukebox_deploy.cli.progress import progress_bars


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--bundle", type=PATH, required=True, metavar="BUNDLE", help="Checkpoint bundle that has the VQ-VAE.")
@click.option(
    "--engines",
    type=PATH,
    metavar="ENGINES",
    help="Encode with these, which `export` or `build` made from BUNDLE. [default: with PyTorch]",
)
@click.option("--codes", type=PATH, required=True, metavar="DIR", help="Where the codes are kept.")
@metadata_option
@threads_option
def encode(
    folder: Path, bundle: Path, engines: Path | None, codes: Path, metadata: Path | None, threads: int | None
) -> None:
    """Encode all songs below DIR with the VQ-VAE of BUNDLE, at all levels.

    `train prior` and `train upsampler` do so themselves, in PyTorch; with the same --codes they find here what they
    need. Exported graphs are faster on a CPU. A run that was interrupted goes on with the same command.
    """
    from jukebox_deploy.jobs.song_codes import EncodeRequest, encode_corpus

    request = EncodeRequest(folder, bundle, codes, engines, metadata, threads)
    with progress_bars() as show:
        coded = encode_corpus(request, partial(show, "encoding songs"))
    for skipped in coded.skipped:
        click.echo(f"{skipped.name} is left out: {skipped.reason}", err=True)
    click.echo(f"{codes}: {len(coded.songs)} songs encoded, {len(coded.skipped)} left out.")
