"""How long a song can be, in seconds: what a request asks for is held against the model before codes are counted."""

from __future__ import annotations

import math
from collections.abc import Container

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.contract import GraphKind
from jukebox_deploy.engine import prior_graphs
from jukebox_deploy.errors import LabelError, SamplingError
from jukebox_deploy.labels.timing import duration_limits
from jukebox_deploy.runtime.song import Mode, SongLengths, SongRequest

LONGEST_SECONDS = 86_400.0
"""Of any length in a request: a model that is not told the time has no limit of its own."""


def shortest_seconds(config: JukeboxConfig, lowest_level: int) -> float:
    """What sampling down to a level takes at least, rounded up to tenths: an upsampler needs a whole window."""
    rate, top_hop = config.vqvae.sample_rate, config.vqvae.hop_lengths[-1]
    top_codes = max(1, math.ceil(_needed_samples(config, lowest_level) / top_hop))
    return math.ceil(10 * top_codes * top_hop / rate - 1e-9) / 10


def lowest_level(config: JukeboxConfig, graphs: Container[str]) -> int | None:
    """How far down songs can be sampled and decoded with these graphs; `None` if not even the top level can."""
    lowest = None
    priors = {prior.level: prior for prior in config.priors}
    for level in range(config.top_level, -1, -1):
        if level not in priors or any(name not in graphs for name in prior_graphs(priors[level])):
            break
        if f"{GraphKind.VQVAE_DECODE}_{level}" in graphs:
            lowest = level
    return lowest


def check_limits(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> None:
    """Refuse what no rounding makes right, with options named: `LabelError` for what the model does not know."""
    end = request.offset_seconds + (request.seconds or 0.0)
    asked = {"--offset and --seconds" if request.offset_seconds else "--seconds": end}
    asked["--total-seconds"] = request.total_seconds or 0.0
    limits = _limits(config, request, lowest_level)
    slack = config.vqvae.hop_lengths[-1] / config.vqvae.sample_rate  # lengths are rounded down to whole top codes
    for option, seconds in asked.items():
        if limits and seconds > limits[1] + slack:
            raise LabelError(
                f"{option}: a song of {seconds:g} s is outside what the model knows: {limits[0]:.2f} s to "
                f"{limits[1]:.2f} s; give less."
            )
    asked["--prompt-seconds"] = request.source_seconds or 0.0
    for option, seconds in asked.items():
        if seconds > LONGEST_SECONDS:
            raise SamplingError(f"{option}: {seconds:g} s are more than a day; give at most {LONGEST_SECONDS:g}.")


def check_windows(config: JukeboxConfig, request: SongRequest, lengths: SongLengths, lowest_level: int) -> None:
    """`SamplingError` for a song too short for an upsampler, with what is long enough."""
    samples = lengths.totals[-1] * config.vqvae.hop_lengths[-1]
    if not lengths.levels_to_sample(lowest_level) or samples >= _needed_samples(config, lowest_level):
        return
    needed, asked = shortest_seconds(config, lowest_level), samples / config.vqvae.sample_rate
    if request.mode is Mode.UPSAMPLE:  # as long as its source at most
        remedy = f"go on with that song first (--continue, --seconds {needed:g})"
    else:
        remedy = f"--seconds {needed:g}"
    levels = _levels(config, request, lowest_level)
    fitting = next((level for level in levels if samples >= _needed_samples(config, level)), None)
    other = "" if fitting is None else f", or --lowest-level {fitting}"
    raise SamplingError(f"level {lowest_level} needs at least {needed:g} s, these are {asked:.2f} s: {remedy}{other}.")


def _needed_samples(config: JukeboxConfig, lowest_level: int) -> int:
    """The longest window of the upsamplers down to a level; 0 if there are none."""
    upsamplers = [prior for prior in config.priors if prior.conditioner and prior.level >= lowest_level]
    return max((prior.window * config.vqvae.hop_length(prior.level) for prior in upsamplers), default=0)


def _levels(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> range:
    """The levels that a request has sampled."""
    return range(lowest_level, config.top_level if request.mode is Mode.UPSAMPLE else config.top_level + 1)


def _limits(config: JukeboxConfig, request: SongRequest, lowest_level: int) -> tuple[float, float] | None:
    """The shortest and the longest song that all priors at work know, in seconds."""
    priors = [prior for prior in config.priors if prior.level in _levels(config, request, lowest_level)]
    found = [limit.seconds for p in priors if (limit := duration_limits(p, config.vqvae.sample_rate))]
    return (max(low for low, _ in found), min(high for _, high in found)) if found else None
