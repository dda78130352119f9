"""`jukebox-deploy evaluate`: how well a model keeps and predicts songs, and what precisions cost it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.progress_bars import progress_bars
from jukebox_deploy.files import write_json_atomic

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.jobs.evaluate_job import BundleResult, Evaluation, PriorResult

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=_PATH)
@click.option("--data", required=True, metavar="DIR", type=_PATH, help="Folder of songs, see `data check`.")
@click.option("--metadata", type=_PATH, metavar="FILE", help="Table of the songs, if it is not in their folder.")
@click.option(
    "--against",
    metavar="CHECKPOINT",
    type=_PATH,
    help="Put this checkpoint bundle first, and compare the others with it.",
)
@click.option(
    "--held-out/--all", default=True, show_default=True, help="Only songs that training left out, or all of them."
)
@click.option(
    "--train-fraction", type=float, default=0.9, show_default=True, help="Of the songs, as it was given to training."
)
@click.option(
    "--windows",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="For each prior, spread over the songs.",
)
@click.option(
    "--songs",
    "coded_songs",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="That windows are taken from; they have to be encoded.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Of sound for each level of the VQ-VAE, spread over the songs.",
)
@click.option("--codes", type=_PATH, metavar="DIR", help="Keep encoded songs here; those of `train` are found.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(bundles: tuple[Path, ...], against: Path | None, out: Path | None, as_json: bool, **choices: Any) -> None:
    """Measure BUNDLE, a checkpoint bundle or an engine bundle, on songs.

    Of the VQ-VAE: how much of the sound each level keeps, and how evenly codes are used. Of the priors: bits per token
    when each token is told before the next is predicted. Of several bundles of one checkpoint, such as exports in other
    precisions, the others are compared with the first, and those that need more than 1 % more bits are marked. Steps
    must have been exported with --logits.
    """
    from jukebox_deploy.jobs.evaluate_job import EvaluationRequest, evaluate
    from jukebox_deploy.jobs.evaluation_data import DataChoice

    everything = bundles if against is None else (against, *bundles)
    codes, data = choices.pop("codes"), choices.pop("data")
    request = EvaluationRequest(everything, DataChoice(data, **choices), codes)
    with progress_bars(as_json) as show:
        evaluation = evaluate(request, show)
    if out is not None:
        write_json_atomic(out, evaluation.to_json())
    if as_json:
        click.echo(json.dumps(evaluation.to_json(), indent=2))
    else:
        _print_evaluation(evaluation)


def _print_evaluation(evaluation: Evaluation) -> None:
    from rich.console import Console

    # In a pipe there is no terminal whose width could be asked for.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    which = "held-out songs" if evaluation.data.held_out else "songs"
    console.print(f"{evaluation.data.folder}: {evaluation.songs} {which}", markup=False, soft_wrap=True)
    for note in evaluation.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
    if evaluation.levels:
        console.print(_sound_table(evaluation))
    for level in sorted({result.level for bundle in evaluation.bundles for result in bundle.priors}):
        console.print(_prior_table(evaluation, level))
        for bundle in evaluation.bundles:
            if (result := bundle.prior(level)) and result.not_run:
                console.print(f"{bundle.bundle}: not run: {result.not_run}", markup=False, soft_wrap=True)


def _sound_table(evaluation: Evaluation) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, title="VQ-VAE", title_justify="left")
    for heading in ("level", "SNR dB", "spectral convergence", "codes used", "perplexity", "entropy, bits"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in evaluation.levels:
        use = entry.use
        used = f"{use.used} of {use.codebook_size} in {use.codes}"
        numbers = (f"{entry.snr:.2f}", f"{entry.spectral_convergence:.3f}", used, f"{use.perplexity:.1f}")
        table.add_row(str(entry.level), *numbers, f"{use.entropy_bits:.3f}")
    return table


def _prior_table(evaluation: Evaluation, level: int) -> Table:
    from rich import box
    from rich.table import Table

    results = [(bundle, result) for bundle in evaluation.bundles if (result := bundle.prior(level))]
    table = Table(box=box.SIMPLE, title=f"prior {level}, {results[0][1].windows} windows", title_justify="left")
    table.add_column("bundle")
    for heading in ("runs on", "precision", "weights"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bits/token", "to the first", "top-1", "lyrics, bits/token"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for bundle, result in results:
        names = (bundle.bundle, bundle.backend, bundle.precision, bundle.weights)
        table.add_row(*names, *_numbers(evaluation, bundle, result))
    return table


def _numbers(evaluation: Evaluation, bundle: BundleResult, result: PriorResult) -> list[str]:
    from jukebox_deploy.jobs.evaluate_job import ACCEPTED_COST

    if result.score is None:
        return ["", "", "", "", "not run"]
    music, lyrics = result.score.music, result.score.lyrics
    cost = evaluation.cost(bundle, result.level)
    return [
        f"{music.bits_per_token:.4f}",
        "" if bundle is evaluation.bundles[0] or cost is None else _signed(cost),
        f"{music.top1:.1%}",
        "" if lyrics is None else f"{lyrics.bits_per_token:.4f}",
        f"over {ACCEPTED_COST:.0%}" if evaluation.is_costly(bundle, result.level) else "",
    ]


def _signed(cost: float) -> str:
    """A share as percent with its sign; nothing is nothing more, not less."""
    return f"{round(cost, 4) + 0.0:+.2%}"
