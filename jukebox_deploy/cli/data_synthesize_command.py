"""`jukebox-deploy data synthesize`: generate a corpus of songs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, settings_from_options
from jukebox_deploy.cli.progress import Progress, ProgressDisplay
from jukebox_deploy.data.synthesis.score import Arrangement

if TYPE_CHECKING:
    from jukebox_deploy.data.synthesis.corpus import CorpusSummary, SongDone

_BAR = "songs"


@click.command()
@click.option("--hours", type=float, metavar="H", help="Generate at least this many hours of music.")
@click.option(
    "--songs", type=int, metavar="N", help="Generate this many songs; with --hours, stop at whichever is reached first."
)
@click.option(
    "--out",
    required=True,
    type=PATH,
    metavar="DIR",
    help="Folder for the corpus: new, empty, or with a corpus to extend.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed; the same seed gives the same songs.")
@click.option("--rate", type=int, default=44_100, show_default=True, help="Sample rate in hertz; songs are mono.")
@click.option(
    "--format",
    "sound_format",
    type=click.Choice(["flac", "wav"]),
    default="flac",
    show_default=True,
    help="Format of the sound files; 16 bits per sample.",
)
@click.option(
    "--grid",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Let sounds begin only at multiples of this time, as in a music tracker; 0: no grid.",
)
@click.option(
    "--arrangement",
    type=click.Choice([str(arrangement) for arrangement in Arrangement]),
    default="full",
    show_default=True,
    help="Who plays: a band (full); or the melody alone, which is much easier for a small model to learn, either sung "
    "(solo) or alternately sung and played, line by line (answered).",
)
@click.option("--processes", type=int, metavar="N", help="Processes that generate songs. [default: one per core]")
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
    """Generate songs with lyrics, by several artists and in several genres, that are free of third-party rights.

    Each song comes with its score: every note, drum hit and sung syllable with its time. To continue an interrupted
    run, repeat the command; to extend a corpus, repeat it with more --hours.
    """
    from jukebox_deploy.data.synthesis.corpus import CorpusRequest, synthesize_corpus
    from jukebox_deploy.data.synthesis.song_files import CorpusIdentity, SoundFormat

    settings = {**numbers, "sound_format": SoundFormat(sound_format), "arrangement": Arrangement(arrangement)}
    with settings_from_options():
        request = CorpusRequest(out, CorpusIdentity(**settings), hours, songs, processes)
    started = time.monotonic()
    progress = CorpusProgress()
    with ProgressDisplay() as display:
        display.show(Progress(_BAR))  # the clock starts before the first song is generated
        summary = synthesize_corpus(request, lambda event: display.show(progress.after(event)))
    _report(summary, time.monotonic() - started, as_json)


class CorpusProgress:
    """Progress of a run; songs from an earlier run do not count towards its speed."""

    def __init__(self) -> None:
        self._songs = 0
        self._seconds = {True: 0.0, False: 0.0}  # of music made by this run (True) and by earlier ones (False)

    def after(self, event: SongDone) -> Progress:
        """Return the progress after an event."""
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
