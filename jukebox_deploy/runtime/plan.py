"""The whole way of one song, worked out and checked before anything is sampled or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.labels.rows import LabelledSong, SongText, label_song, window_labels
from jukebox_deploy.labels.timing import duration_limits
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from jukebox_deploy.runtime.windows import Window, WindowGeometry, plan_level


@dataclass(frozen=True)
class LevelPlan:
    """What one prior is to do for a song, and what it is told about it."""

    windows: Sequence[Window]
    song: LabelledSong


def plan_song(
    config: JukeboxConfig, vocabulary: Vocabulary, request: SongRequest, lengths: SongLengths, lowest_level: int
) -> Mapping[int, LevelPlan]:
    """Windows and labels of every level to sample.

    The plan follows from the request and what was given, never from what is sampled so far: a
    resumed song goes through the same windows. Raises `SamplingError` for lengths that a level
    cannot be sampled at, `LabelError` for labels that its prior does not take, `ConfigError` for a
    level without a prior.
    """
    priors = [config.prior(level) for level in lengths.levels_to_sample(lowest_level)]
    total, offset = _place_in_song(config, priors, request, lengths)
    text = SongText(request.artist, request.genre, request.lyrics)
    plans = {}
    for prior in priors:
        windows = plan_level(WindowGeometry.of(prior), lengths.totals[prior.level], lengths.given[prior.level])
        song = label_song(prior, vocabulary, text, total_length=total, offset=offset)
        _check_labels(config, prior, song, windows)
        plans[prior.level] = LevelPlan(windows, song)
    return plans


def _place_in_song(
    config: JukeboxConfig, priors: Sequence[PriorConfig], request: SongRequest, lengths: SongLengths
) -> tuple[int, int]:
    """Samples of the song that the model imagines, and of its part before code 0."""
    rate = config.vqvae.sample_rate
    offset = round(request.offset_seconds * rate)
    end = offset + lengths.totals[0] * config.vqvae.hop_length(0)
    if request.total_seconds is None:
        # The song ends with what is sampled, unless the model knows only longer ones.
        limits = [duration_limits(prior, rate) for prior in priors]
        return max([end, *(limit.shortest for limit in limits if limit)]), offset
    total = round(request.total_seconds * rate)
    if end > total:
        raise SamplingError(
            f"the sampled part ends at {end / rate:.2f} s, after the song's end at {total / rate:.2f} s; "
            "give a longer total or sample less."
        )
    return total, offset


def _check_labels(config: JukeboxConfig, prior: PriorConfig, song: LabelledSong, windows: Sequence[Window]) -> None:
    """Make the labels of the first and the last window; those between can only be right if these are."""
    for window in (windows[0], windows[-1]):
        hop = config.vqvae.hop_length(prior.level)
        window_labels(prior, config.vqvae.sample_rate, hop, song.labels, window.start)
