"""`jukebox-deploy presets`: list the known models and their sizes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from jukebox_deploy.cli.tables import output_console, plain_table, print_table
from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.contract import Precision
from jukebox_deploy.costs import (
    WeightStorage,
    allocated_cache_bytes,
    audio_second_flops,
    full_cache_bytes,
    mean_attention_flops,
    step_bytes,
    sufficient_cache_bytes,
    system_tokens_per_second,
    weight_bytes,
    weight_flops,
    window_seconds,
)
from jukebox_deploy.parameter_counts import prior_parameters, system_parameters, vqvae_parameters
from jukebox_deploy.presets import PRESETS, preset
from jukebox_deploy.quantities import byte_size


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List the known models and their sizes, or only those named.

    Weights are given in fp32 and in fp16, and so are the caches of one slot; a slot is one of the songs sampled at the
    same time. 1 GB is 1,000 MB or 10^9 bytes.
    """
    configs = [preset(name) for name in names] or list(PRESETS.values())
    if as_json:
        click.echo(json.dumps({config.name: describe(config) for config in configs}, indent=2))
    else:
        _print_table(configs)


def describe(config: JukeboxConfig) -> dict[str, Any]:
    """Return all figures of a model as plain data; in bytes, hertz and seconds."""
    return {
        "parameters": system_parameters(config),
        "sample_rate": config.vqvae.sample_rate,
        "hop_lengths": list(config.vqvae.hop_lengths),
        "tokens_per_second": system_tokens_per_second(config.vqvae),
        "vqvae": {"parameters": vqvae_parameters(config.vqvae).total},
        "priors": [_describe_prior(config, prior) for prior in config.priors],
    }


def _describe_prior(config: JukeboxConfig, prior: PriorConfig) -> dict[str, Any]:
    parameters = prior_parameters(prior)
    stack = prior.transformer
    return {
        "level": prior.level,
        "window": prior.window,
        "window_seconds": window_seconds(config, prior),
        "parameters": {**asdict(parameters), "total": parameters.total},
        "weight_bytes": {str(storage): weight_bytes(prior, storage) for storage in WeightStorage},
        "cache_bytes_per_slot": {
            str(precision): {
                "allocated": allocated_cache_bytes(prior, precision),
                "sufficient": sufficient_cache_bytes(stack, precision),
                "full": full_cache_bytes(stack, precision),
            }
            for precision in Precision
        },
        "flops_per_token": {"weights": weight_flops(prior), "attention": mean_attention_flops(stack)},
        "flops_per_audio_second": audio_second_flops(config, prior),
        "bytes_per_step_of_one_slot": {str(precision): step_bytes(prior, 1, precision) for precision in Precision},
    }


def _print_table(configs: list[JukeboxConfig]) -> None:
    numbers = ("parameters", "fp32", "fp16", "cache fp32", "cache fp16", "window")
    table = plain_table("preset", "part", *numbers, right=numbers)
    for config in configs:
        codec = vqvae_parameters(config.vqvae).total
        table.add_row(config.name, "VQ-VAE", f"{codec:,}", byte_size(4 * codec), "", "", "", "")
        for prior in reversed(config.priors):
            table.add_row("", *_cells(config, prior))
        table.add_section()
    print_table(output_console(120), table)


def _cells(config: JukeboxConfig, prior: PriorConfig) -> list[str]:
    part = "top prior" if prior.level == config.top_level else f"upsampler {prior.level}"
    sizes = [weight_bytes(prior, storage) for storage in (WeightStorage.SINGLE, WeightStorage.HALF)]
    caches = [allocated_cache_bytes(prior, precision) for precision in (Precision.FP32, Precision.FP16)]
    return [
        part,
        f"{prior_parameters(prior).total:,}",
        *map(byte_size, (*sizes, *caches)),
        f"{window_seconds(config, prior):.2f} s",
    ]
