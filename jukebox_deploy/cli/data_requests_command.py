"""`jukebox-deploy data requests`: songs to ask a model for, as those of a corpus are."""

from __future__ import annotations

from pathlib import Path

import click

from jukebox_deploy.cli.options import PATH, metadata_option


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@click.option("--out", type=PATH, required=True, metavar="FILE", help="JSON lines, for `sample --requests`.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), required=True, help="Of each song.")
@click.option(
    "--place",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Where in the song that part lies: 0 at its beginning, 1 at its end.",
)
@metadata_option
def requests(folder: Path, out: Path, seconds: float, place: float, metadata: Path | None) -> None:
    """Write a request for every song below DIR: part of a song with that artist, genre, lyrics and length.

    `sample` makes such songs, and `evaluate-songs` tells whether they are what was asked for.
    """
    from jukebox_deploy.data.catalogue import read_catalogue
    from jukebox_deploy.jobs.requests.corpus import corpus_requests, write_requests

    catalogue = read_catalogue(folder, metadata=metadata)
    asked = corpus_requests(catalogue, seconds, place)
    write_requests(asked, out)
    click.echo(f"{out}: {len(asked)} songs to ask for.")
