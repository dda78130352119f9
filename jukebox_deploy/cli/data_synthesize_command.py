"""`jukebox-deploy data synthesize`: a corpus of generated songs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jukebox_deploy.data.synthesis.corpus import CorpusSummary, Listener, SongDone


@click.command()
@click.option("--hours", type=float, metavar="H", help="Make at least that much music.")
@click.option("--songs", type=int, metavar="N", help="Make that many songs; with --hours, what is reached first.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of the corpus: new, empty, or one to go on with.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same songs.")
@click.option("--rate", type=int, default=44_100, show_default=True, help="Samples per second, mono.")
@click.option(
    "--format",
    "sound_format",
    type=click.Choice(["flac", "wav"]),
    default="flac",
    show_default=True,
    help="Of the sound files, 16 bits per sample.",
)
@click.option("--processes", type=int, metavar="N", help="Processes that make songs. [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON; progress goes to standard error.")
def synthesize(
    hours: float | None,
    songs: int | None,
    out: Path,
    seed: int,
    rate: int,
    sound_format: str,
    processes: int | None,
    as_json: bool,
) -> None:
    """Make songs with lyrics by several artists in several genres, free of anybody's rights.

    Beside each song lies its score: every note, drum and sung syllable with its time. A run that was interrupted goes
    on with the same command; with more --hours a corpus grows.
    """
    from jukebox_deploy.data.synthesis.corpus import CorpusRequest, synthesize_corpus
    from jukebox_deploy.data.synthesis.song_files import CorpusIdentity, SoundFormat

    identity = CorpusIdentity(seed, rate, SoundFormat(sound_format))
    request = CorpusRequest(out, identity, hours, songs, processes)
    started = time.monotonic()
    with _listener() as listen:
        summary = synthesize_corpus(request, listen)
    _report(summary, time.monotonic() - started, as_json)


@contextmanager
def _listener() -> Iterator[Listener]:
    """Draws a bar with speed and time left, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda event: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("songs"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("songs", total=None, note="starting")
        rate = _Rate()

        def show(event: SongDone) -> None:
            bars.update(task, total=event.total_seconds, advance=event.song.seconds, note=rate.after(event))

        yield show


class _Rate:
    """How fast this run makes songs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._songs = 0
        self._made_seconds = 0.0

    def after(self, event: SongDone) -> str:
        """What to say after an event: for instance `song 12, 140 x real time`."""
        self._songs += 1
        self._made_seconds += event.song.seconds if event.made else 0.0
        speed = self._made_seconds / max(self._clock() - self._started, 1e-9)
        return f"song {self._songs}" + (f", {speed:.3g} x real time" if event.made else "")


def _report(summary: CorpusSummary, elapsed: float, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**summary.to_json(), "elapsed_seconds": elapsed}, indent=2))
        return
    size = f"{summary.seconds / 3600:.2f} hours of music, songs: {len(summary.songs)}"
    click.echo(f"{summary.folder}: {size}, of which made now: {summary.made}, in {elapsed:.1f} s.")
