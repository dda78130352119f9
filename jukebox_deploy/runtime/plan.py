"""Plan of one song at all levels, made and checked before anything is sampled or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jukebox_deploy.config import JukeboxConfig, PriorConfig
from jukebox_deploy.errors import SamplingError
from jukebox_deploy.labels.lyrics import LyricAlphabet
from jukebox_deploy.labels.rows import LabelledSong, SongLabels, SongText, label_song, window_labels
from jukebox_deploy.labels.timing import duration_limits
from jukebox_deploy.labels.vocabulary import Vocabulary
from jukebox_deploy.runtime.lengths import check_windows
from jukebox_deploy.runtime.song import SongLengths, SongRequest
from jukebox_deploy.runtime.windows import Window, WindowGeometry, plan_level


@dataclass(frozen=True)
class LevelPlan:
    """The windows that one prior samples for a song, and the labels that it is conditioned on."""

    windows: Sequence[Window]
    song: LabelledSong


def plan_song(
    config: JukeboxConfig, vocabulary: Vocabulary, request: SongRequest, lengths: SongLengths, lowest_level: int
) -> Mapping[int, LevelPlan]:
    """Plan the windows and labels of every level to sample.

    The plan depends on the request and the given codes, never on the codes sampled so far, so a resumed song goes
    through the same windows. Raises `SamplingError` for lengths that a level cannot be sampled at, `LabelError` for
    labels that its prior does not accept, `ConfigError` for a level without a prior.
    """
    priors = [config.prior(level) for level in lengths.levels_to_sample(lowest_level)]
    total, offset = place_in_song(config, priors, request, lengths)
    check_windows(config, request, lengths, lowest_level)
    text = SongText(request.artist, request.genre, request.lyrics)
    plans = {}
    for prior in priors:
        song = label_song(prior, vocabulary, text, total_length=total, offset=offset)
        windows = plan_level(WindowGeometry.of(prior), lengths.totals[prior.level], lengths.given[prior.level])
        _check_labels(config, prior, song, windows)
        more = (
            *_label_warnings(prior, vocabulary, text, song.labels),
            *_lyrics_warnings(config, prior, request, song.labels, windows),
        )
        plans[prior.level] = LevelPlan(windows, replace(song, warnings=(*song.warnings, *more)))
    return plans


def place_in_song(
    config: JukeboxConfig, priors: Sequence[PriorConfig], request: SongRequest, lengths: SongLengths
) -> tuple[int, int]:
    """Return the length of the whole song and the offset of code 0 in it, in samples, as the priors are told them.

    Raises `SamplingError` if the sampled part ends after a requested total length.
    """
    rate = config.vqvae.sample_rate
    offset = round(request.offset_seconds * rate)
    end = offset + lengths.totals[0] * config.vqvae.hop_length(0)
    if request.total_seconds is None:
        # The song ends where the sampled part ends, or later if the priors support only longer songs.
        limits = [duration_limits(prior, rate) for prior in priors]
        return max([end, *(limit.shortest for limit in limits if limit)]), offset
    total = round(request.total_seconds * rate)
    if end > total:
        raise SamplingError(
            f"the sampled part ends at {end / rate:.2f} s, after the song's end at {total / rate:.2f} s; "
            "give a longer --total-seconds, or fewer --seconds."
        )
    return total, offset


def _check_labels(config: JukeboxConfig, prior: PriorConfig, song: LabelledSong, windows: Sequence[Window]) -> None:
    """Check that the first and the last window can be labelled; the windows between them then can be, too."""
    for window in (windows[0], windows[-1]):
        hop = config.vqvae.hop_length(prior.level)
        window_labels(prior, config.vqvae.sample_rate, hop, song.labels, window.start)


def _label_warnings(prior: PriorConfig, vocabulary: Vocabulary, text: SongText, song: SongLabels) -> tuple[str, ...]:
    """Warn of labels that are suspicious in a request, though they may be right in training data."""
    unnamed = vocabulary.for_model(prior.labels).unnamed(song.artist, song.genres) if prior.labels else ()
    spellings = LyricAlphabet.of(prior.lyrics).clean(text.lyrics).spellings() if prior.lyrics and text.lyrics else ()
    return (*map(str, unnamed), *spellings)


def _lyrics_warnings(
    config: JukeboxConfig, prior: PriorConfig, request: SongRequest, song: SongLabels, windows: Sequence[Window]
) -> tuple[str, ...]:
    """Warn of lyrics that no window of the song takes into account."""
    if request.lyrics.strip() and not any(other.lyrics for other in config.priors):
        return (f"The model {config.name} takes no lyrics; they are ignored.",)
    if prior.lyrics is None or not song.lyric_tokens:
        return ()
    lost = np.count_nonzero(~_seen_characters(config, prior, request, song, windows))
    if not lost:
        return ()
    return (
        f"{lost} of the {len(song.lyric_tokens)} characters of the lyrics are seen by no window: each sees "
        f"{prior.lyrics.tokens} of them, spread over a song of {song.total_length / config.vqvae.sample_rate:.2f} s. "
        "Give fewer lyrics or more --seconds; for the lyrics of a longer song, say how long it is with "
        "--total-seconds.",
    )


def _seen_characters(
    config: JukeboxConfig, prior: PriorConfig, request: SongRequest, song: SongLabels, windows: Sequence[Window]
) -> np.ndarray:
    """Return for each lyric character of the sampled part whether a window sees it."""
    rate, hop = config.vqvae.sample_rate, config.vqvae.hop_length(prior.level)
    seen = np.zeros(len(song.lyric_tokens), bool)
    for window in windows:
        lyrics = window_labels(prior, rate, hop, song, window.start).lyrics
        if lyrics is not None:
            seen[lyrics.indices[lyrics.indices >= 0]] = True
    first, last = windows[0].new_codes.start, windows[-1].new_codes.stop
    begin, end = (len(seen) * (song.offset + code * hop) // song.total_length for code in (first, last))
    # A song of unknown length ends where the sampled part ends, and so do its lyrics.
    return seen[begin : len(seen) if request.total_seconds is None else end]
