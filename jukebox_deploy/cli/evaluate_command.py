"""`jukebox-deploy evaluate`: how well a model keeps and predicts songs, and what precisions cost it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, give_report, report_options, song_options, threads_option
from jukebox_deploy.cli.progress import progress_bars
from jukebox_deploy.cli.tables import output_console, plain_table

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.jobs.evaluate_job import BundleResult, Evaluation, PriorResult


@click.command()
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=PATH)
@song_options
@click.option(
    "--against",
    metavar="CHECKPOINT",
    type=PATH,
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
@click.option("--codes", type=PATH, metavar="DIR", help="Keep encoded songs here; those of `train` are found.")
@threads_option
@report_options
def command(bundles: tuple[Path, ...], against: Path | None, out: Path | None, as_json: bool, **choices: Any) -> None:
    """Measure BUNDLE, a checkpoint bundle or an engine bundle, on songs.

    Of the VQ-VAE: how much of the sound each level keeps, and how evenly codes are used. Of the priors: bits per token
    when each token is told before the next is predicted. Of several bundles of one checkpoint, such as exports in other
    precisions, the others are compared with the first, and those that need more than 1 % more bits are marked. Steps
    must have been exported without --no-logits.
    """
    from jukebox_deploy.jobs.evaluate_job import EvaluationRequest, evaluate
    from jukebox_deploy.jobs.evaluation.data import DataChoice

    everything = bundles if against is None else (against, *bundles)
    codes, data, threads = (choices.pop(name) for name in ("codes", "data", "threads"))
    request = EvaluationRequest(everything, DataChoice(data, **choices), codes, threads)
    with progress_bars() as show:
        evaluation = evaluate(request, show)
    give_report(evaluation.to_json(), out, as_json, lambda: _print_evaluation(evaluation))


def _print_evaluation(evaluation: Evaluation) -> None:
    console = output_console()
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
    headings = ("level", "SNR dB", "spectral convergence", "codes used", "perplexity", "entropy, bits")
    table = plain_table(*headings, right=headings, title="VQ-VAE")
    for entry in evaluation.levels:
        use = entry.use
        used = f"{use.used} of {use.codebook_size} in {use.codes}"
        numbers = (f"{entry.snr:.2f}", f"{entry.spectral_convergence:.3f}", used, f"{use.perplexity:.1f}")
        table.add_row(str(entry.level), *numbers, f"{use.entropy_bits:.3f}")
    return table


def _prior_table(evaluation: Evaluation, level: int) -> Table:
    results = [(bundle, result) for bundle in evaluation.bundles if (result := bundle.prior(level))]
    names, numbers = ("bundle", "runs on", "precision", "weights"), ("bits/token", "to the first", "top-1")
    lyrics, title = "lyrics, bits/token", f"prior {level}, {results[0][1].windows} windows"
    table = plain_table(*names, *numbers, lyrics, "", right={*numbers, lyrics}, wrapped={"bundle"}, title=title)
    for bundle, result in results:
        facts = (bundle.bundle, bundle.backend, bundle.precision, bundle.weights)
        table.add_row(*facts, *_numbers(evaluation, bundle, result))
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
