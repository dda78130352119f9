"""`jukebox-deploy import`: released checkpoints in, a checkpoint bundle out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.options import PATH, grouped
from jukebox_deploy.parameter_counts import system_parameters

if TYPE_CHECKING:
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.labels.vocabulary import Vocabulary


@click.group()
def command() -> None:
    """Read checkpoints into a checkpoint bundle: configuration, weights, artists and genres."""


_out = click.option("--out", required=True, type=PATH, metavar="BUNDLE", help="The bundle's folder, new or empty.")
_force = click.option("--force", is_flag=True, help="Replace the bundle that is there.")
_released_options = grouped(
    _out,
    click.option("--preset", metavar="NAME", help="The model, see `jukebox-deploy presets`; default: what fits."),
    click.option(
        "--vocabulary",
        type=PATH,
        metavar="FOLDER",
        help="Artists and genres: OpenAI's id lists (v2_artist_ids.txt, …), or artists.json and genres.json.",
    ),
    _force,
)


@command.command("openai", short_help="Read the files that OpenAI published or its code wrote.")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@_released_options
def import_openai_command(
    files: tuple[Path, ...], out: Path, preset: str | None, vocabulary: Path | None, force: bool
) -> None:
    """Read OpenAI's files: vqvae.pth.tar and some or all prior_level_N.pth.tar, in any order."""
    from jukebox_deploy.checkpoints.openai import import_openai

    names = _read_vocabulary(vocabulary)
    with replacing(out, force=force, is_ours=_is_bundle, inputs=files):
        bundle = import_openai(files, preset, out, names)
    _report(bundle)


@command.command("hf", short_help="Read a folder in Hugging Face's layout.")
@click.argument("folder", type=PATH)
@_released_options
def import_hf_command(folder: Path, out: Path, preset: str | None, vocabulary: Path | None, force: bool) -> None:
    """Read a folder in Hugging Face's layout: safetensors or .bin files, single or in shards.

    Lists of artists and genres in the folder are used unless --vocabulary names others.
    """
    from jukebox_deploy.checkpoints.huggingface import import_huggingface

    names = _read_vocabulary(vocabulary)
    with replacing(out, force=force, is_ours=_is_bundle, inputs=[folder]):
        bundle = import_huggingface(folder, out, preset, names)
    _report(bundle)


@command.command("trained", short_help="Put parts that were trained apart into one bundle.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@_out
@click.option("--name", metavar="NAME", help="Of the model. [default: that of the first run]")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), help="Store all weights like this.")
@click.option(
    "--later-wins", is_flag=True, help="Of two priors of one level take the later: to fine-tune one of three."
)
@_force
def import_trained_command(
    runs: tuple[Path, ...], out: Path, name: str | None, dtype: str | None, later_wins: bool, force: bool
) -> None:
    """Put the priors of several runs of `train`, and their VQ-VAE, into one bundle.

    RUN is the folder of a run, or a checkpoint bundle. All priors must have learnt the codes of one VQ-VAE, at
    least at the levels that they write and read.
    """
    import torch

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.contract import Precision
    from jukebox_deploy.jobs.training.bundle import join_bundles

    parts = [CheckpointBundle.open(run / "bundle" if (run / "bundle").is_dir() else run) for run in runs]
    element: torch.dtype | None = getattr(torch, Precision(dtype).dtype) if dtype else None
    with replacing(out, force=force, is_ours=_is_bundle, inputs=runs):
        bundle = join_bundles(parts, out, name, element, later_wins=later_wins)
    _report(bundle)


def _read_vocabulary(path: Path | None) -> Vocabulary | None:
    if path is None:
        return None
    from jukebox_deploy.labels.vocabulary_files import read_vocabulary

    return read_vocabulary(path)


def _is_bundle(folder: Path) -> bool:
    """Whether this is a checkpoint bundle, of whatever version."""
    try:
        return "format_version" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _report(bundle: CheckpointBundle) -> None:
    """Say what came out, and what to do next."""
    config = bundle.config
    click.echo(
        f"{bundle.folder}: {config.name}, {system_parameters(config):,} numbers: {', '.join(bundle.components)}."
    )
    for rules, names in bundle.vocabulary.lists.items():
        click.echo(f"Names by the rules {rules}: {len(names.artists)} artists, {len(names.genres)} genres.")
    if not bundle.vocabulary.lists and any(prior.labels for prior in config.priors):
        click.echo("No lists of artists and genres (--vocabulary): songs can name them by number only, as in #12.")
    click.echo(f"Next: jukebox-deploy export {bundle.folder} --out GRAPHS")
