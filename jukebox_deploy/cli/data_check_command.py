"""`jukebox-deploy data check`: check which songs of a folder can be used for training."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, metadata_option
from jukebox_deploy.cli.tables import output_console, print_rows
from jukebox_deploy.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from jukebox_deploy.data.catalogue import Catalogue

_SHOWN = 20
"""Names shown in a table on the terminal; JSON has all."""


@click.command()
@click.argument("folder", type=PATH, metavar="DIR")
@metadata_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(folder: Path, metadata: Path | None, as_json: bool) -> None:
    """Count the songs below DIR by artist and genre, and list the files that are skipped and why.

    The table of the songs is JSON lines or CSV. Its column "file" holds paths relative to DIR; the columns "artist",
    "genres" (in CSV separated by ";") and "lyrics" are optional. The exit code is 1 if there is nothing to train on.
    """
    from jukebox_deploy.data.catalogue import read_catalogue

    catalogue = read_catalogue(folder, metadata=metadata)
    if as_json:
        click.echo(json.dumps(describe(catalogue), indent=2))
    else:
        _print(catalogue)
    if not catalogue.songs:
        raise DataError(f"{folder}: nothing here can be trained on; all that was found is left out.")


def describe(catalogue: Catalogue) -> dict[str, Any]:
    """Return all counts as plain data; lengths in seconds."""
    songs = catalogue.songs
    return {
        "folder": str(catalogue.folder),
        "songs": len(songs),
        "seconds": catalogue.seconds,
        "shortest_seconds": min((song.seconds for song in songs), default=None),
        "longest_seconds": max((song.seconds for song in songs), default=None),
        "with_lyrics": sum(bool(song.lyrics.strip()) for song in songs),
        "sample_rates": _counts(str(song.sample_rate) for song in songs),
        "channels": _counts(str(song.channels) for song in songs),
        "artists": _counts(song.artist for song in songs),
        "genres": _counts(genre for song in songs for genre in song.genres or ("",)),
        "skipped": [{"file": skipped.name, "reason": skipped.reason} for skipped in catalogue.skipped],
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    """Count each name, most frequent first; the empty name stands for songs without one."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _print(catalogue: Catalogue) -> None:
    console = output_console(120)
    counts = describe(catalogue)
    lines = [f"{catalogue.folder}: {counts['songs']} songs, {counts['seconds'] / 3600:.2f} hours of music"]
    if catalogue.songs:
        rates = ", ".join(f"{rate} Hz ({count})" for rate, count in counts["sample_rates"].items())
        channels = ", ".join(f"{number} ({count})" for number, count in counts["channels"].items())
        lines += [
            f"length: {counts['shortest_seconds']:.1f} to {counts['longest_seconds']:.1f} s",
            f"rates: {rates}; channels: {channels}",
            f"lyrics: {counts['with_lyrics']} songs",
        ]
    console.print("\n".join(lines), soft_wrap=True)
    for kind, heading in (("artists", "artist"), ("genres", "genre")):
        if set(counts[kind]) - {""}:
            _print_names(console, heading, counts[kind])
    if catalogue.skipped:
        rows = [(skipped.name, skipped.reason) for skipped in catalogue.skipped]
        print_rows(console, ("left out", "reason"), rows)


def _print_names(console: Console, heading: str, counts: dict[str, int]) -> None:
    rows = [(name or "(none)", str(count)) for name, count in list(counts.items())[:_SHOWN]]
    if len(counts) > _SHOWN:
        rows.append((f"… and {len(counts) - _SHOWN} more", ""))
    print_rows(console, (heading, "songs"), rows)
