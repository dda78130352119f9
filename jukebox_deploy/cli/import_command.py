"""`jukebox-deploy import`: make a checkpoint bundle from released or trained checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jukebox_deploy.cli.folders import replacing
from jukebox_deploy.cli.options import PATH, grouped
from jukebox_deploy.parameter_counts import system_parameters

if TYPE_CHECKING:
    from jukebox_deploy.labels.vocabulary import Vocabulary


@click.group()
def command() -> None:
    """Make a checkpoint bundle, with configuration, weights, artists and genres, from other checkpoints."""


_out = click.option(
    "--out", required=True, type=PATH, metavar="BUNDLE", help="Folder for the checkpoint bundle, new or empty."
)
_force = click.option("--force", is_flag=True, help="Replace an existing bundle in the output folder.")
_released_options = grouped(
    _out,
    click.option(
        "--preset", metavar="NAME", help="The model; see `jukebox-deploy presets`. [default: found from the weights]"
    ),
    click.option(
        "--vocabulary",
        type=PATH,
        metavar="FOLDER",
        help="Folder with the artists and genres: OpenAI's id lists (v2_artist_ids.txt, …), or artists.json and "
        "genres.json.",
    ),
    _force,
)


@command.command("openai", short_help="Import files from OpenAI or in its format.")
@click.argument("files", nargs=-1, required=True, type=PATH, metavar="FILE...")
@_released_options
def import_openai_command(
    files: tuple[Path, ...], out: Path, preset: str | None, vocabulary: Path | None, force: bool
) -> None:
    """Import OpenAI's files: vqvae.pth.tar and some or all of the prior_level_N.pth.tar, in any order."""
    from jukebox_deploy.checkpoints.openai import import_openai

    names = _read_vocabulary(vocabulary)
    with replacing(out, force=force, is_ours=_is_bundle, inputs=files) as fresh:
        import_openai(files, preset, fresh, names)
    _report(out)


@command.command("hf", short_help="Import a folder in Hugging Face's layout.")
@click.argument("folder", type=PATH)
@_released_options
def import_hf_command(folder: Path, out: Path, preset: str | None, vocabulary: Path | None, force: bool) -> None:
    """Import a folder in Hugging Face's layout: safetensors or .bin files, single or sharded.

    If the folder has lists of artists and genres, they are used unless --vocabulary is given.
    """
    from jukebox_deploy.checkpoints.huggingface import import_huggingface

    names = _read_vocabulary(vocabulary)
    with replacing(out, force=force, is_ours=_is_bundle, inputs=[folder]) as fresh:
        import_huggingface(folder, fresh, preset, names)
    _report(out)


@command.command("trained", short_help="Combine separately trained parts into one bundle.")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN...")
@_out
@click.option("--name", metavar="NAME", help="Name of the model. [default: that of the first RUN]")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="Data type to store all weights in. [default: as they are]",
)
@click.option(
    "--later-wins",
    is_flag=True,
    help="If several RUNs have a prior of the same level, use the last one; for instance to replace a prior with a "
    "fine-tuned one.",
)
@_force
def import_trained_command(
    runs: tuple[Path, ...], out: Path, name: str | None, dtype: str | None, later_wins: bool, force: bool
) -> None:
    """Combine the priors of several `train` runs and their VQ-VAE into one checkpoint bundle.

    RUN is the folder of a run, or a checkpoint bundle. All priors must have been trained on codes of the same VQ-VAE;
    it may differ only at levels that a prior neither predicts nor is conditioned on.
    """
    import torch

    from jukebox_deploy.checkpoints.bundle import CheckpointBundle
    from jukebox_deploy.contract import Precision
    from jukebox_deploy.jobs.training.bundle import join_bundles

    parts = [CheckpointBundle.open(run / "bundle" if (run / "bundle").is_dir() else run) for run in runs]
    element: torch.dtype | None = getattr(torch, Precision(dtype).dtype) if dtype else None
    with replacing(out, force=force, is_ours=_is_bundle, inputs=runs) as fresh:
        join_bundles(parts, fresh, name, element, later_wins=later_wins)
    _report(out)


def _read_vocabulary(path: Path | None) -> Vocabulary | None:
    if path is None:
        return None
    from jukebox_deploy.labels.vocabulary_files import read_vocabulary

    return read_vocabulary(path)


def _is_bundle(folder: Path) -> bool:
    """Whether this is a checkpoint bundle, of any version."""
    try:
        return "format_version" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _report(folder: Path) -> None:
    """Print a summary of the bundle in this folder and the next command."""
    from jukebox_deploy.checkpoints.bundle import CheckpointBundle

    bundle = CheckpointBundle.open(folder)
    config = bundle.config
    click.echo(
        f"{bundle.folder}: {config.name}, {system_parameters(config):,} numbers: {', '.join(bundle.components)}."
    )
    for rules, names in bundle.vocabulary.lists.items():
        click.echo(f"Names by the rules {rules}: {len(names.artists)} artists, {len(names.genres)} genres.")
    if not bundle.vocabulary.lists and any(prior.labels for prior in config.priors):
        click.echo("No lists of artists and genres (--vocabulary): songs can name them by number only, as in #12.")
    click.echo(f"Next: jukebox-deploy export {bundle.folder} --out GRAPHS")
