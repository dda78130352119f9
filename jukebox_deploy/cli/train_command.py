"""`jukebox-deploy train`: train a VQ-VAE, a top prior or an upsampler on a folder of songs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from jukebox_deploy.cli.level_values import LevelValueType
from jukebox_deploy.cli.options import (
    PATH,
    UsualFloat,
    comma_separated,
    grouped,
    numbers_from,
    settings_from_options,
    song_options,
)
from jukebox_deploy.cli.progress import ProgressDisplay
from jukebox_deploy.cli.training_progress import training_progress

if TYPE_CHECKING:
    from jukebox_deploy.jobs.requests.songs import LevelValue
    from jukebox_deploy.jobs.train_job import TrainingSummary
    from jukebox_deploy.jobs.training.request import TrainingEvent, TrainingListener, TrainRequest
    from jukebox_deploy.models.losses import LossSettings
    from jukebox_deploy.training.settings import OptimiserSettings, Part, RunSettings


@click.group()
def command() -> None:
    """Train a model on a folder of songs.

    Train the VQ-VAE first, then the priors on its codes; in any order, or in parallel on several machines. Each run
    writes a checkpoint bundle to OUT/bundle; `jukebox-deploy import trained` combines those of several runs. To use
    several GPUs: torchrun --nproc-per-node N -m jukebox_deploy.cli.main train ...
    """


_where = grouped(
    song_options,
    click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for the run."),
    click.option("--resume", is_flag=True, help="Continue the run in the --out folder."),
    click.option("--preset", metavar="NAME", help="The model; see `jukebox-deploy presets`."),
)
_how = grouped(
    click.option(
        "--steps", required=True, type=int, metavar="N", help="Total training steps, including those before --resume."
    ),
    click.option("--batch", type=int, default=4, show_default=True, help="Examples per step, over all processes."),
    click.option("--accumulate", type=int, default=1, show_default=True, help="Pieces to split each batch into."),
    click.option("--learning-rate", type=float, metavar="RATE", help="Peak learning rate. [default: the paper's]"),
    click.option("--weight-decay", type=float, metavar="DECAY", help="Weight decay. [default: the paper's]"),
    click.option("--beta2", type=float, metavar="BETA", help="beta2 of Adam. [default: the paper's]"),
    click.option("--clip", type=float, default=1.0, show_default=True, help="Largest gradient norm; 0: no clipping."),
    click.option(
        "--warm-up", type=int, default=100, show_default=True, metavar="N", help="Steps until the full learning rate."
    ),
    click.option(
        "--anneal", type=int, default=0, show_default=True, metavar="N", help="Last steps, while the rate decays to 0."
    ),
    click.option(
        "--average", type=float, metavar="DECAY", help="Decay of averaged weights. [default: by the batch size]"
    ),
    click.option(
        "--seed", type=int, default=0, show_default=True, help="Seed; with the same data, gives the same weights."
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        show_default=True,
        help="Precision of products; fp16 uses loss scaling.",
    ),
    click.option("--recompute", is_flag=True, help="Recompute activations in the backward pass, to save memory."),
    click.option(
        "--compile",
        "compiled",
        is_flag=True,
        help="Compile the model with torch.compile: a slow first step, then faster ones. Needs a C++ compiler.",
    ),
    click.option(
        "--sharding",
        type=click.Choice(["replicated", "sharded"]),
        default="replicated",
        show_default=True,
        help="With several processes: each holds all weights (replicated, DDP) or a shard of them (sharded, FSDP2).",
    ),
    click.option(
        "--freeze",
        callback=comma_separated,
        metavar="a,b",
        help="Parameters to keep unchanged, given by parts of their names.",
    ),
    click.option("--train-fraction", type=float, default=0.9, show_default=True, help="Share of songs to train on."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads. [default: PyTorch's]"),
)
_when = grouped(
    click.option(
        "--checkpoint-minutes", type=float, default=10.0, show_default=True, help="Minutes between checkpoints."
    ),
    click.option("--keep", type=int, default=2, show_default=True, help="Number of checkpoints to keep."),
    click.option("--log-steps", type=int, default=10, show_default=True, help="Steps between rows of log.csv."),
    click.option(
        "--report-steps", type=int, default=0, show_default=True, help="Steps between evaluations; 0: only at the end."
    ),
    click.option("--tensorboard", is_flag=True, help="Also log for TensorBoard, in OUT/tensorboard."),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
)
_prior = grouped(
    click.option(
        "--bundle", required=True, type=PATH, metavar="BUNDLE", help="Checkpoint bundle with the trained VQ-VAE."
    ),
    click.option("--fine-tune", is_flag=True, help="Start from the weights of the prior in BUNDLE."),
    click.option(
        "--vocabulary",
        type=PATH,
        metavar="DIR",
        help="Folder with lists of artists and genres and their ids. [default: lists in the --data folder, else made "
        "from its labels]",
    ),
    click.option(
        "--codes",
        type=PATH,
        metavar="DIR",
        help="Folder that keeps encoded songs; several runs can share it. [default: OUT-codes]",
    ),
)


@command.command("vqvae", short_help="Train the VQ-VAE.")
@_where
@click.option("--bundle", type=PATH, metavar="BUNDLE", help="Fine-tune the VQ-VAE of this checkpoint bundle.")
@click.option(
    "--levels",
    callback=numbers_from(0),
    metavar="N,N",
    help="Train only these levels; the others stay as they are in BUNDLE. [default: all]",
)
@click.option("--anew", is_flag=True, help="Start the levels of --levels from newly initialised weights.")
@click.option(
    "--waveform-weight",
    type=LevelValueType(UsualFloat(min=0)),
    multiple=True,
    help="LEVEL=VALUE, once per level: weight of the waveform loss relative to the spectral loss. [default: 1]",
)
@click.option("--seconds", type=float, metavar="S", help="Length of an example in seconds. [default: 8.9, the paper's]")
@click.option(
    "--aligned",
    is_flag=True,
    help="Start examples at multiples of a top-level code, as when songs are encoded; for music on such a grid.",
)
@click.option(
    "--revival-threshold",
    type=float,
    default=1.0,
    show_default=True,
    metavar="N",
    help="Re-initialise codes that, on average, fewer than N latents of a batch are assigned to; use a smaller value "
    "for small batches.",
)
@_how
@_when
def train_vqvae(**options: Any) -> None:
    """Train the VQ-VAE: encoders, codebooks and decoders of all levels, on the sound of the songs."""
    from jukebox_deploy.training.settings import Part

    _run(Part.VQVAE, {**options, "fine_tune": options["bundle"] is not None})


@command.command("prior", short_help="Train the top prior.")
@_where
@_prior
@_how
@_when
def train_prior(**options: Any) -> None:
    """Train the prior of the top level, conditioned on artist, genre, timing and lyrics as the model supports."""
    from jukebox_deploy.training.settings import Part

    _run(Part.PRIOR, options)


@command.command("upsampler", short_help="Train an upsampler.")
@_where
@_prior
@click.option(
    "--level", required=True, type=click.IntRange(min=0), help="Level that the upsampler predicts; 0 is the finest."
)
@_how
@_when
def train_upsampler(**options: Any) -> None:
    """Train an upsampler: the prior of a lower level, conditioned on the codes of the level above."""
    from jukebox_deploy.training.settings import Part

    _run(Part.UPSAMPLER, options)


def _run(part: Part, options: dict[str, Any]) -> None:
    from jukebox_deploy.jobs.train_job import train

    if options["threads"] is not None:
        import torch

        torch.set_num_threads(options["threads"])
    with settings_from_options():
        request = _request(part, options)
    _warn_of_emulation(request)
    with _listener() as listen:
        summary = train(request, listen)
    _report(summary, options["as_json"])


def _warn_of_emulation(request: TrainRequest) -> None:
    from jukebox_deploy.training.precision import is_emulated

    precision = request.settings.precision
    if is_emulated(precision):
        click.echo(
            f"--precision {precision}: this processor has no instructions for it, so steps take about ten times as "
            "long as with --precision fp32.",
            err=True,
        )


def _request(part: Part, options: dict[str, Any]) -> TrainRequest:
    from jukebox_deploy.jobs.training.request import TrainRequest
    from jukebox_deploy.training.settings import Cadence

    places = ("data", "out", "preset", "bundle", "fine_tune", "metadata", "vocabulary", "codes", "resume")
    times = ("checkpoint_minutes", "keep", "log_steps", "report_steps", "tensorboard")
    return TrainRequest(
        _settings(part, options),
        cadence=Cadence(**{name: options[name] for name in times}),
        **{name: options[name] for name in places if name in options},
    )


def _settings(part: Part, options: dict[str, Any]) -> RunSettings:
    from jukebox_deploy.training.precision import TrainingPrecision
    from jukebox_deploy.training.settings import RunSettings, Sharding

    same = ("steps", "batch", "accumulate", "seed", "recompute", "compiled", "train_fraction")
    return RunSettings(
        part,
        **{name: options[name] for name in same},
        level=options.get("level"),
        levels=options.get("levels", ()),
        anew=options.get("anew", False),
        seconds=options.get("seconds"),
        aligned=options.get("aligned", False),
        revival_threshold=options.get("revival_threshold", 1.0),
        precision=TrainingPrecision(options["precision"]),
        sharding=Sharding(options["sharding"]),
        average_decay=options["average"],
        frozen=options["freeze"],
        optimiser=_optimiser(part, options),
        loss=_loss(options.get("waveform_weight", ())),
    )


def _loss(waveform_weights: Sequence[LevelValue]) -> LossSettings:
    from jukebox_deploy.models.losses import LossSettings

    by_level = {entry.level: entry.value for entry in waveform_weights if entry.level is not None}
    if any(entry.level is None for entry in waveform_weights):
        raise click.UsageError("--waveform-weight is given by level, such as 2=0.1.")
    return LossSettings(waveform=tuple(by_level.get(level, 1.0) for level in range(max(by_level, default=-1) + 1)))


def _optimiser(part: Part, options: dict[str, Any]) -> OptimiserSettings:
    """Return the paper's recipe with the options that the user changed."""
    from jukebox_deploy.training.settings import RECIPES

    names = ("learning_rate", "weight_decay", "beta2", "clip", "warm_up", "anneal")
    return replace(RECIPES[part], **{name: options[name] for name in names if options[name] is not None})


@contextmanager
def _listener() -> Iterator[TrainingListener]:
    """Show warnings and progress: a bar on a terminal, otherwise an occasional line."""
    with ProgressDisplay() as display:

        def listen(event: TrainingEvent) -> None:
            if event.warning:
                display.say(f"Warning: {event.warning}")
            else:
                display.show(training_progress(event))

        yield listen


def _report(summary: TrainingSummary, as_json: bool) -> None:
    if summary.bundle is None:  # only the first process prints the report
        return
    if as_json:
        numbers = {"run": str(summary.folder), "steps": summary.steps, "seconds": summary.seconds}
        numbers |= {"waited_for_data_seconds": summary.waited, "held_out": dict(summary.held_out)}
        click.echo(json.dumps(numbers, indent=2))
        return
    waited = f"{summary.waited:.0f} s of which it waited for examples"
    click.echo(f"{summary.folder}: {summary.steps} steps; this call took {summary.seconds:.0f} s, {waited}.")
    for name, value in summary.held_out.items():
        click.echo(f"  {name}: {value:.4g}")
    click.echo(f"Checkpoint bundle: {summary.bundle.folder}")
    sys.stdout.flush()
