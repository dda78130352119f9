"""Limits on the length of a song, in seconds: requests are checked against the model before anything is sampled."""

from __future__ import annotations

import math
from collections.abc import Container

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind, graph_name
from jukebox_deploy.engine import prior_graphs
from jukebox_deploy.errors import LabelError, SamplingError
from jukebox_deploy.labels.timing import duration_limits
from jukebox_deploy.runtime.song import Mode, SongLengths, SongRequest

LONGEST_SECONDS = 86_400.0
"""Upper bound of every duration in a request, because a model without timing labels has no limit of its own."""


def shortest_seconds(config: JukeboxConfig, lowest_level: int) -> float:
    """Return the shortest song, in seconds rounded up to tenths, that can be sampled down to a level.

    Every upsampler needs a whole window.
    """
    rate, top_hop = config.vqvae.sample_rate, config.vqvae.hop_lengths[-1]
    top_codes = max(1, math.ceil(_needed_samples(config, lowest_level) / top_hop))
    return math.ceil(10 * top_codes * top_hop / rate - 1e-9) / 10


def lowest_level(config: JukeboxConfig, graphs: Container[str]) -> int | None:
    """Return the lowest level that these graphs can sample and decode; `None` if not even the top level."""
    lowest = None
    priors = {prior.level: prior for prior in config.priors}
    for level in range(config.top_level, -1, -1):
        if level not in priors or any(name not in graphs for name in prior_graphs(priors[level])):
            break
        if graph_name(GraphKind.VQVAE_DECODE, level) in graphs:
            lowest = level
    return lowest


def check_limits(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> None:
    """Refuse durations that are out of range by more than rounding; the message names the option.

    Raises `LabelError` for a song that is longer than the model supports, `SamplingError` for more than
    `LONGEST_SECONDS`.
    """
    end = request.offset_seconds + (request.seconds or 0.0)
    asked = {"--offset and --seconds" if request.offset_seconds else "--seconds": end}
    asked["--total-seconds"] = request.total_seconds or 0.0
    limits = _limits(config, request, lowest_level)
    # Lengths are rounded down to whole top-level codes, so up to one code above the limit may still be right.
    slack = config.vqvae.hop_lengths[-1] / config.vqvae.sample_rate
    for option, seconds in asked.items():
        if limits and seconds > limits[1] + slack:
            raise LabelError(
                f"{option}: a song of {seconds:g} s is longer than the model supports: {limits[0]:.2f} s to "
                f"{limits[1]:.2f} s; give a shorter length."
            )
    asked["--prompt-seconds"] = request.source_seconds or 0.0
    for option, seconds in asked.items():
        if seconds > LONGEST_SECONDS:
            raise SamplingError(f"{option}: {seconds:g} s is more than a day; give at most {LONGEST_SECONDS:g}.")


def check_windows(config: JukeboxConfig, request: SongRequest, lengths: SongLengths, lowest_level: int) -> None:
    """Raise `SamplingError` if a song is too short for an upsampler; the message gives a sufficient length."""
    samples = lengths.totals[-1] * config.vqvae.hop_lengths[-1]
    if not lengths.levels_to_sample(lowest_level) or samples >= _needed_samples(config, lowest_level):
        return
    needed, asked = shortest_seconds(config, lowest_level), samples / config.vqvae.sample_rate
    if request.mode is Mode.UPSAMPLE:  # the result cannot be longer than its source
        remedy = f"continue that song first (--continue, --seconds {needed:g})"
    else:
        remedy = f"--seconds {needed:g}"
    levels = _levels(config, request, lowest_level)
    fitting = next((level for level in levels if samples >= _needed_samples(config, level)), None)
    other = "" if fitting is None else f", or --lowest-level {fitting}"
    raise SamplingError(
        f"level {lowest_level} needs a song of at least {needed:g} s, but this one has {asked:.2f} s: {remedy}{other}."
    )


def _needed_samples(config: JukeboxConfig, lowest_level: int) -> int:
    """Return the samples of the longest window of the upsamplers down to a level; 0 if there are none."""
    upsamplers = [prior for prior in config.priors if prior.conditioner and prior.level >= lowest_level]
    return max((prior.window * config.vqvae.hop_length(prior.level) for prior in upsamplers), default=0)


def _levels(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> range:
    """Return the levels that are sampled for a request."""
    return range(lowest_level, config.top_level if request.mode is Mode.UPSAMPLE else config.top_level + 1)


def _limits(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> tuple[float, float] | None:
    """Return the shortest and the longest song, in seconds, that all priors of a request support.

    `None` if none of them has timing labels.
    """
    priors = [prior for prior in config.priors if prior.level in _levels(config, request, lowest_level)]
    found = [limit.seconds for p in priors if (limit := duration_limits(p, config.vqvae.sample_rate))]
    return (max(low for low, _ in found), min(high for _, high in found)) if found else None
