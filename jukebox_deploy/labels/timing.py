"""Position of a window within its song, as bins of three embedding tables (specification 9.2).

Everything is computed in float32 and in the original's order of operations, because another order moves values across
the edges of bins. Lengths are in audio samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jukebox_deploy.config import PriorConfig, TimingConfig
from jukebox_deploy.errors import LabelError


@dataclass(frozen=True)
class DurationLimits:
    """The song lengths that a model accepts, both ends included."""

    shortest: int  # samples
    longest: int
    sample_rate: int

    @property
    def seconds(self) -> tuple[float, float]:
        """Shortest and longest song in seconds."""
        return self.shortest / self.sample_rate, self.longest / self.sample_rate


@dataclass(frozen=True)
class Stretch:
    """A window of audio within a song, in samples."""

    total_length: int  # of the song
    offset: int  # of the window's first sample
    sample_length: int  # of the window


@dataclass(frozen=True, eq=False)
class TimingBins:
    """Row indices in the three timing tables: `total` is one for the window, the others are `[positions]`."""

    total: int
    absolute: npt.NDArray[np.int64]
    relative: npt.NDArray[np.int64]


def duration_limits(prior: PriorConfig, sample_rate: int) -> DurationLimits | None:
    """Return the song lengths that a prior accepts; `None` if it has no timing labels."""
    return _limits(prior.timing, sample_rate) if prior.timing else None


def timing_bins(timing: TimingConfig, sample_rate: int, stretch: Stretch, positions: int) -> TimingBins:
    """Compute the bins of a window with `positions` codes.

    Raises `LabelError` if the song is too short or too long for the model, or if the window starts outside the song or
    ends after the longest possible song.
    """
    _check(timing, sample_rate, stretch)
    bins = np.float32(timing.bins)
    shortest, longest = _range(timing, sample_rate)
    total, start = np.float32(stretch.total_length), np.float32(stretch.offset)
    end = np.float32(stretch.offset + stretch.sample_length)
    fraction = np.arange(positions, dtype=np.float32) / np.float32(positions)
    total_bin = np.floor(bins * ((total - shortest) / np.float32(_range_width(timing, sample_rate))))
    absolute = np.floor(bins * ((start + (end - start) * fraction) / longest))
    first, last = start / total, np.clip(end / total, np.float32(0), np.float32(1))
    relative = np.floor(bins * (first + (last - first) * fraction))
    # Close to the song's end, rounding can yield one bin too many (specification 17.5).
    return TimingBins(int(total_bin), absolute.astype(np.int64), np.minimum(relative.astype(np.int64), timing.bins - 1))


def _range(timing: TimingConfig, sample_rate: int) -> tuple[np.float32, np.float32]:
    """Return the duration range in samples."""
    return np.float32(timing.min_duration * sample_rate), np.float32(timing.max_duration * sample_rate)


def _range_width(timing: TimingConfig, sample_rate: int) -> float:
    """Return the width of the duration range; like the original, in double precision, to be rounded afterwards."""
    return timing.max_duration * sample_rate - timing.min_duration * sample_rate


def _limits(timing: TimingConfig, sample_rate: int) -> DurationLimits:
    """Return the smallest and the largest integer that pass the check in float32, which has gaps above 2^24."""
    low, high = _range(timing, sample_rate)
    shortest, longest = int(np.ceil(low)), int(np.ceil(high)) - 1
    while np.float32(shortest - 1) >= low:
        shortest -= 1
    while np.float32(longest) >= high:
        longest -= 1
    return DurationLimits(shortest, longest, sample_rate)


def _check(timing: TimingConfig, sample_rate: int, stretch: Stretch) -> None:
    """Apply the checks of the original, to numbers that are rounded to float32 as in the original."""
    low, high = _range(timing, sample_rate)
    total, start = np.float32(stretch.total_length), np.float32(stretch.offset)
    if not low <= total < high:
        limits = _limits(timing, sample_rate)
        raise LabelError(
            f"A song of {stretch.total_length / sample_rate:.2f} s ({stretch.total_length} samples) is outside the "
            f"range that the model supports: {limits.seconds[0]:.2f} s to {limits.seconds[1]:.2f} s "
            f"({limits.shortest} to {limits.longest} samples). Choose a total length in that range."
        )
    if stretch.offset < 0 or start / total >= 1:
        raise LabelError(
            f"A window starts at sample {stretch.offset}, outside its song of {stretch.total_length} samples. "
            "Sample less, or choose a longer total length."
        )
    end = stretch.offset + stretch.sample_length
    if np.float32(end) > high:
        raise LabelError(
            f"A window ends at {end / sample_rate:.2f} s, after the longest song that the model supports "
            f"({timing.max_duration:g} s). Sample less, or start earlier."
        )
