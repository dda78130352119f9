"""`jukebox-deploy data requests`: write sampling requests with the labels of a corpus."""

from __future__ import annotations

from pathlib import Path

import click

from jukebox_deploy.cli.options import PATH, OutFile, UsualFloat, metadata_option


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option(
    "--out",
    type=OutFile(),
    required=True,
    metavar="FILE",
    help="File of JSON lines to write, for `sample --requests`.",
)
@click.option("--seconds", type=UsualFloat(0, min_open=True), required=True, help="Length of each sampled song.")
@click.option(
    "--place",
    type=UsualFloat(0, 1),
    default=0.3,
    show_default=True,
    help="Where in the original song the sampled part lies: from 0 (beginning) to 1 (end).",
)
@metadata_option
def requests(folder: Path, out: Path, seconds: float, place: float, metadata: Path | None) -> None:
    """Write a sampling request for every song below DIR, with its artist, genre, lyrics and total length.

    `sample --requests` samples these songs; `evaluate-songs` checks whether they match their labels.
    """
    from jukebox_deploy.data.catalogue import read_catalogue
    from jukebox_deploy.jobs.requests.corpus import corpus_requests, write_requests

    catalogue = read_catalogue(folder, metadata=metadata)
    asked = corpus_requests(catalogue, seconds, place)
    write_requests(asked, out)
    click.echo(f"{out}: {len(asked)} songs to ask for.")
