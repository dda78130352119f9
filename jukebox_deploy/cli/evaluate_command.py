"""`jukebox-deploy evaluate`: measure how well a model reconstructs and predicts songs, in several precisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.options import PATH, UsualFloat, give_report, report_options, song_options, threads_option
from jukebox_deploy.cli.progress import progress_bars
from jukebox_deploy.cli.recorded_command import RecordedCommand, measurement_header
from jukebox_deploy.cli.tables import output_console, plain_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from jukebox_deploy.jobs.evaluate_job import BundleResult, Evaluation, PriorResult


@click.command(cls=RecordedCommand)
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=PATH)
@song_options
@click.option(
    "--against",
    metavar="CHECKPOINT",
    type=PATH,
    help="Checkpoint bundle to compare all BUNDLEs with. [default: the first BUNDLE]",
)
@click.option(
    "--held-out/--all",
    default=True,
    show_default=True,
    help="Evaluate only on songs held out from training, or on all songs.",
)
@click.option(
    "--train-fraction",
    type=UsualFloat(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Share of songs used for training, as given to `train`.",
)
@click.option(
    "--windows",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Number of windows per prior, spread over the songs.",
)
@click.option(
    "--songs",
    "coded_songs",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Number of songs that the windows are taken from; each has to be encoded.",
)
@click.option(
    "--seconds",
    type=UsualFloat(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds of sound per level of the VQ-VAE, spread over the songs.",
)
@click.option(
    "--codes",
    type=PATH,
    metavar="DIR",
    help="Folder that keeps encoded songs, for instance the one used by `train`. [default: a temporary folder]",
)
@threads_option
@report_options
def command(bundles: tuple[Path, ...], against: Path | None, out: Path | None, as_json: bool, **choices: Any) -> None:
    """Measure how well BUNDLE, a checkpoint bundle or an engine bundle, models songs.

    For each level of the VQ-VAE: how well it reconstructs sound, and how evenly codes are used. For each prior: bits
    per token with teacher forcing. Several BUNDLEs must come from the same checkpoint, for instance exports in
    different precisions; each is compared with the first, and those that need over 1 % more bits are marked. Step
    graphs must have logits (exported without --no-logits).
    """
    from jukebox_deploy.jobs.evaluate_job import EvaluationRequest, evaluate
    from jukebox_deploy.jobs.evaluation.data import DataChoice

    everything = bundles if against is None else (against, *bundles)
    codes, data, threads = (choices.pop(name) for name in ("codes", "data", "threads"))
    request = EvaluationRequest(everything, DataChoice(data, **choices), codes, threads)
    with progress_bars() as show:
        evaluation = evaluate(request, show)
    document = {**measurement_header(), **evaluation.to_json()}
    give_report(document, out, as_json, lambda: _print_evaluation(evaluation))


def _print_evaluation(evaluation: Evaluation) -> None:
    console = output_console()
    which = "held-out songs" if evaluation.data.held_out else "songs"
    console.print(f"{evaluation.data.folder}: {evaluation.songs} {which}", soft_wrap=True)
    for note in evaluation.notes:
        console.print(note, style="dim", soft_wrap=True)
    if evaluation.levels:
        print_table(console, _sound_table(evaluation))
    for level in sorted({result.level for bundle in evaluation.bundles for result in bundle.priors}):
        print_table(console, _prior_table(evaluation, level))
        for bundle in evaluation.bundles:
            if (result := bundle.prior(level)) and result.not_run:
                console.print(f"{bundle.bundle}: not run: {result.not_run}", soft_wrap=True)


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
    windows, lyrics = results[0][1].windows, "lyrics, bits/token"
    title = f"prior {level}, {windows} window{'s' * (windows != 1)}"
    table = plain_table(*names, *numbers, lyrics, "", right={*numbers, lyrics}, wrapped={"bundle"}, title=title)
    for bundle, result in results:
        facts = (bundle.bundle, bundle.backend, bundle.precision, bundle.weights)
        table.add_row(*facts, *_numbers(evaluation, bundle, result))
    if (known := evaluation.frequency_score(level)) is not None:
        counted = f"frequencies of {known.codes} codes in {known.songs} songs, without a window's own song"
        table.add_row(counted, "", "", "", f"{known.score.bits_per_token:.4f}", "", f"{known.score.top1:.1%}", "", "")
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
    """Format a share as a signed percentage; a cost that rounds to zero is +0.00%."""
    return f"{round(cost, 4) + 0.0:+.2%}"
