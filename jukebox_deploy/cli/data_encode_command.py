"""`jukebox-deploy data encode`: encode songs into codes ahead of training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from jukebox_deploy.cli.options import PATH, metadata_option, threads_option
from jukebox_deploy.cli.progress import progress_bars


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--bundle", type=PATH, required=True, metavar="BUNDLE", help="Checkpoint bundle with the VQ-VAE.")
@click.option(
    "--engines",
    type=PATH,
    metavar="ENGINES",
    help="Engine bundle made from BUNDLE by `export` or `build`, to encode with. [default: encode with PyTorch]",
)
@click.option("--codes", type=PATH, required=True, metavar="DIR", help="Folder to keep the codes in.")
@metadata_option
@threads_option
def encode(
    folder: Path, bundle: Path, engines: Path | None, codes: Path, metadata: Path | None, threads: int | None
) -> None:
    """Encode all songs below DIR into codes of every level, with the VQ-VAE of BUNDLE.

    This is optional: `train prior` and `train upsampler` encode songs themselves, with PyTorch, unless they find them
    in the folder given with --codes. With --engines, encoding is faster on a CPU. To continue an interrupted run,
    repeat the command.
    """
    from jukebox_deploy.jobs.song_codes import EncodeRequest, encode_corpus

    request = EncodeRequest(folder, bundle, codes, engines, metadata, threads)
    with progress_bars() as show:
        coded = encode_corpus(request, partial(show, "encoding songs"))
    for skipped in coded.skipped:
        click.echo(f"{skipped.name} is left out: {skipped.reason}", err=True)
    click.echo(f"{codes}: {len(coded.songs)} songs encoded, {len(coded.skipped)} left out.")
