"""`jukebox-deploy align`: find when each word of a song's lyrics is sung."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.options import PATH, OutFolder, threads_option
from jukebox_deploy.cli.progress import progress_bars
from jukebox_deploy.cli.tables import output_console, plain_table, print_table
from jukebox_deploy.contract import Precision
from jukebox_deploy.engines.device import PYTORCH_PROVIDERS, Provider

if TYPE_CHECKING:
    from rich.console import Console

    from jukebox_deploy.jobs.align_job import AlignedSong


@click.command()
@click.argument("songs", metavar="SONG...", nargs=-1, required=True, type=PATH)
@click.option(
    "--checkpoint",
    required=True,
    metavar="BUNDLE",
    type=PATH,
    help="Checkpoint bundle that the engines which sampled the songs were exported from.",
)
@click.option(
    "--out", type=OutFolder(), metavar="DIR", help="Output folder, if there is one SONG. [default: its song folder]"
)
@click.option(
    "--provider",
    type=click.Choice([str(p) for p in PYTORCH_PROVIDERS]),
    default=str(Provider.CPU),
    show_default=True,
    help="Device that PyTorch runs on.",
)
@click.option(
    "--precision",
    type=click.Choice([str(p) for p in Precision]),
    default=str(Precision.FP32),
    show_default=True,
    help="Precision of the transformer stack; fp16 and bf16 take half the memory.",
)
@threads_option
@click.option("--json", "as_json", is_flag=True, help="Print words and times as JSON; progress goes to standard error.")
def command(
    songs: tuple[Path, ...],
    checkpoint: Path,
    out: Path | None,
    provider: str,
    precision: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find when each word is sung in SONG, a finished song folder with lyrics.

    The model's top prior runs over the codes of the song once more, and its attention to the lyrics shows which word
    is being sung. Written next to the song are words.json (words with start and end in seconds), lyrics.lrc and
    lyrics.vtt (lines for players), alignment.png, and alignment.npz (the attention itself). Words that get no
    attention have no times.
    """
    from jukebox_deploy.jobs.align_job import AlignRequest, align_songs

    request = AlignRequest(checkpoint, songs, out, Precision(precision), Provider(provider), threads)
    with progress_bars() as show:
        aligned = align_songs(request, show)
    if as_json:
        click.echo(json.dumps({"songs": [song.to_json() for song in aligned]}, indent=2))
        return
    console = output_console()
    for song in aligned:
        _print_song(console, song)


def _print_song(console: Console, song: AlignedSong) -> None:
    alignment, focus = song.alignment, song.alignment.focus
    told = (
        f"{focus.share:.0%} of the attention, beyond every character's average, is on the word that is sung; by "
        f"chance it would be {focus.chance:.0%}."
        if alignment.sung
        else "The model does not follow these lyrics, so none has a time."
    )
    console.print(
        f"{song.folder}: {len(alignment.sung)} of {len(alignment.words)} words are sung. {told}", soft_wrap=True
    )
    if alignment.sung:
        table = plain_table("from", "to", "attention", "line", right={"from", "to", "attention"}, wrapped={"line"})
        for line in alignment.lines:
            table.add_row(f"{line.start:.2f}", f"{line.end:.2f}", f"{line.focus.share:.0%}", line.text)
        print_table(console, table)
    for path in song.to_json()["files"]:
        console.print(path, soft_wrap=True)
