"""`jukebox-deploy evaluate-songs`: do sampled songs sound like the artists and genres they were sampled for?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, OutFile, give_report, report_options, threads_option
from jukebox_deploy.cli.progress import progress_bars
from jukebox_deploy.cli.recorded_command import RecordedCommand, measurement_header
from jukebox_deploy.cli.tables import output_console, plain_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.jobs.evaluation.bundles import EvaluatedBundle
    from jukebox_deploy.jobs.samples.quality import JudgeRequest, SampleQuality
    from jukebox_deploy.jobs.samples.scale_shares import MeanShare


@click.command(cls=RecordedCommand)
@click.argument("songs", metavar="SONGS_DIR", type=PATH)
@click.option(
    "--data",
    required=True,
    metavar="CORPUS",
    type=PATH,
    help="Folder of labelled songs from which to learn artists and genres; see `data check`.",
)
@click.option(
    "--level",
    "levels",
    type=click.IntRange(min=0),
    multiple=True,
    help="Evaluate level_N.wav; may be repeated. [default: all levels that have sound files]",
)
@click.option(
    "--clips",
    type=click.IntRange(min=2),
    default=600,
    show_default=True,
    help="Approximate number of corpus clips to learn from.",
)
@click.option(
    "--codec",
    type=PATH,
    metavar="BUNDLE",
    help="First encode and decode the corpus with the VQ-VAE of this bundle, so that it has the same artefacts as "
    "the samples.",
)
@click.option(
    "--plot",
    type=OutFile(),
    metavar="FILE",
    help="Write a PNG with spectrograms of samples and corpus, and with confusion matrices; one file per level.",
)
@threads_option
@report_options
def command(songs: Path, data: Path, plot: Path | None, out: Path | None, as_json: bool, **choices: Any) -> None:
    """Check whether the songs in SONGS_DIR, sampled with artists and genres of CORPUS, sound like these.

    Classifiers are trained on clips of the corpus, as long as the samples, and predict the artist and genre of each
    sample. For genres of a synthesized corpus, the share of energy on the genre's musical scale is measured as well.
    """
    from jukebox_deploy.jobs.samples.quality import JudgeRequest, judge_samples

    codec = _open_codec(choices["codec"], choices["threads"])
    threads = {"threads": choices["threads"]} if choices["threads"] else {}
    engine = None if codec is None else codec.engine
    request = JudgeRequest(songs, data, choices["levels"], choices["clips"], engine, **threads)
    with progress_bars() as show:
        judged = judge_samples(request, show)
    document = _document(request, codec, judged)
    pictures = _draw(plot, judged)
    give_report(document, out, as_json, lambda: _print_judged(judged, pictures))


def _document(
    request: JudgeRequest, codec: EvaluatedBundle | None, judged: tuple[SampleQuality, ...]
) -> dict[str, Any]:
    """Return the report as plain data: samples, corpus, codec and results."""
    from jukebox_deploy.jobs.samples.song_clips import sampled_by

    return {
        **measurement_header(),
        "songs": str(request.songs),
        "sampled_by": [{"checkpoint": one.checkpoint, "engine": one.engine} for one in sampled_by(request.songs)],
        "corpus": str(request.corpus),
        "codec": None if codec is None else {"bundle": str(codec.folder), "checkpoint": codec.checkpoint},
        "levels": [quality.to_json() for quality in judged],
    }


def _open_codec(folder: Path | None, threads: int | None) -> EvaluatedBundle | None:
    if folder is None:
        return None
    from jukebox_deploy.jobs.evaluation.bundles import open_evaluated

    (bundle,) = open_evaluated([folder], threads)
    return bundle


def _draw(plot: Path | None, judged: tuple[SampleQuality, ...]) -> list[Path]:
    if plot is None:
        return []
    from jukebox_deploy.jobs.samples.pictures import write_sample_picture

    pictures = []
    for quality in judged:
        path = plot if len(judged) == 1 else plot.with_stem(f"{plot.stem}_level_{quality.level}")
        write_sample_picture(path, quality)
        pictures.append(path)
    return pictures


def _print_judged(judged: tuple[SampleQuality, ...], pictures: list[Path]) -> None:
    console = output_console()
    for quality in judged:
        corpus = quality.corpus
        console.print(
            f"level {quality.level}: {len(quality.sampled)} samples of {quality.form.seconds:.2f} s, held against "
            f"{len(corpus)} clips of {len({clip.song for clip in corpus})} songs"
        )
        print_table(console, _table(quality))
        for note in quality.notes:
            console.print(f"{note}.", soft_wrap=True)
    for path in pictures:
        console.print(f"{path}: pictures", soft_wrap=True)


def _table(quality: SampleQuality) -> Table:
    numbers = ("samples", "found", "95 %", "chance", "p", "corpus")
    table = plain_table("", *numbers, right=numbers)
    for entry in quality.recognitions:
        interval = f"{entry.interval.low:.1%} to {entry.interval.high:.1%}"
        by_chance = (f"{entry.chance:.1%}", "" if entry.p_value is None else f"{entry.p_value:.2g}")
        shares = (f"{entry.accuracy:.1%}", interval, *by_chance, f"{entry.corpus_accuracy:.1%}")
        table.add_row(f"{entry.kind} recognised", str(entry.samples), *shares)
    if (scale := quality.scale) is not None:
        count, noise = str(scale.samples), f"{scale.noise:.1%} to {scale.random:.1%}"
        table.add_row("energy on the genre's scale", count, *_share(scale.asked), noise, "", f"{scale.corpus:.1%}")
        table.add_row("on those of other genres", count, *_share(scale.others), "", "", f"{scale.corpus_others:.1%}")
        margin = f"{scale.corpus - scale.corpus_others:.1%}"
        table.add_row("the difference", count, *_share(scale.margin), "0.0%", "", margin)
    return table


def _share(share: MeanShare) -> tuple[str, str]:
    interval = f"{share.mean - share.error:.1%} to {share.mean + share.error:.1%}" if share.error is not None else ""
    return f"{share.mean:.1%}", interval
