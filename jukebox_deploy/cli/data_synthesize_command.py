"""`jukebox-deploy data synthesize`: a corpus of generated songs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH
from jukebox_deploy.cli.progress import Progress, ProgressDisplay
from jukebox_deploy.data.synthesis.score import Arrangement

if TYPE_CHECKING:
    from jukebox_deploy.data.synthesis.corpus import CorpusSummary, SongDone

_BAR = "songs"


@click.command()
@click.option("--hours", type=float, metavar="H", help="Make at least that much music.")
@click.option("--songs", type=int, metavar="N", help="Make that many songs; with --hours, what is reached first.")
@click.option(
    "--out",
    required=True,
    type=PATH,
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
@click.option(
    "--grid",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Sounds begin at multiples of this, as in a tracker; 0: anywhere.",
)
@click.option(
    "--arrangement",
    type=click.Choice([str(arrangement) for arrangement in Arrangement]),
    default="full",
    show_default=True,
    help="A band, or the tune alone, which is much easier for a small model to learn: sung (solo), or sung and played "
    "line by line in turn (answered).",
)
@click.option("--processes", type=int, metavar="N", help="Processes that make songs. [default: one per core]")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON; progress goes to standard error.")
def synthesize(
    hours: float | None,
    songs: int | None,
    out: Path,
    sound_format: str,
    arrangement: str,
    processes: int | None,
    as_json: bool,
    **numbers: Any,
) -> None:
    """Make songs with lyrics by several artists in several genres, free of anybody's rights.

    Beside each song lies its score: every note, drum and sung syllable with its time. A run that was interrupted goes
    on with the same command; with more --hours a corpus grows.
    """
    from jukebox_deploy.data.synthesis.corpus import CorpusRequest, synthesize_corpus
    from jukebox_deploy.data.synthesis.song_files import CorpusIdentity, SoundFormat

    identity = CorpusIdentity(**numbers, sound_format=SoundFormat(sound_format), arrangement=Arrangement(arrangement))
    request = CorpusRequest(out, identity, hours, songs, processes)
    started = time.monotonic()
    progress = CorpusProgress()
    with ProgressDisplay() as display:
        display.show(Progress(_BAR))  # the clock begins before the first song is made
        summary = synthesize_corpus(request, lambda event: display.show(progress.after(event)))
    _report(summary, time.monotonic() - started, as_json)


class CorpusProgress:
    """How far this run is with its songs; those that an earlier run made do not count as made."""

    def __init__(self) -> None:
        self._songs = 0
        self._seconds = {True: 0.0, False: 0.0}  # of songs made, and of those that were there

    def after(self, event: SongDone) -> Progress:
        """Where the run is after an event."""
        self._songs += 1
        self._seconds[event.made] += event.song.seconds
        return Progress(
            _BAR,
            sum(self._seconds.values()),
            event.total_seconds,
            "s of music",
            found=self._seconds[False],
            note=f"song {self._songs}",
            speed=lambda rate: f"{rate:.3g} x real time",
        )


def _report(summary: CorpusSummary, elapsed: float, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**summary.to_json(), "elapsed_seconds": elapsed}, indent=2))
        return
    size = f"{summary.seconds / 3600:.2f} hours of music, songs: {len(summary.songs)}"
    click.echo(f"{summary.folder}: {size}, of which made now: {summary.made}, in {elapsed:.1f} s.")
