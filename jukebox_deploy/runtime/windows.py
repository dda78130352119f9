"""Division of a level into sampling windows (specification 12.1 and 12.2). All numbers count codes of the level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from jukebox_deploy.config import PriorConfig
from jukebox_deploy.errors import SamplingError


@dataclass(frozen=True)
class WindowGeometry:
    """Length of a prior's windows and the hop between them, which configurations are checked for."""

    window: int
    hop: int  # new codes per window
    upsampling: int = 1  # codes per code of the level above, 1 at the top

    @classmethod
    def of(cls, prior: PriorConfig) -> Self:
        """Return the geometry of a prior."""
        return cls(prior.window, prior.hop, prior.conditioner.upsampling if prior.conditioner else 1)


@dataclass(frozen=True)
class Window:
    """One run of a prior over a window. `known` and `end` count from `start`."""

    start: int  # index in the level of the window's first code
    known: int  # the positions before this one hold codes that already exist
    end: int  # sampling stops before this position

    @property
    def new_codes(self) -> range:
        """Indices in the level of the codes that this window samples."""
        return range(self.start + self.known, self.start + self.end)


def window_starts(geometry: WindowGeometry, total: int) -> list[int]:
    """Return the first codes of the windows that cover `total` codes; the last window ends exactly at `total`.

    Raises:
        SamplingError: if not even one window fits, or the last window would start between two codes
            of the level above.
    """
    last = total - geometry.window
    if last < 0:
        raise SamplingError(f"{total} codes are less than one window of {geometry.window}. Sample a longer song.")
    if total % geometry.upsampling:
        raise SamplingError(
            f"{total} codes are not a multiple of {geometry.upsampling}, the codes per code of the level above. "
            "Choose a length that is a whole number of top-level codes."
        )
    return [min(start, last) for start in range(0, last + geometry.hop, geometry.hop)]


def partial_window(geometry: WindowGeometry, present: int, new: int) -> Window:
    """Return a window that adds `new` codes to `present` ones and need not be full.

    It starts at code 0 if all codes fit, else as late as needed to end with the new codes. Only for the top level: an
    upsampler needs the upper codes of a whole window.
    """
    if geometry.upsampling != 1:
        raise SamplingError(
            f"An upsampler needs a full window of {geometry.window} codes, only {present + new} are requested. "
            "Sample a longer song."
        )
    if not 0 < new <= geometry.window or present < 0:
        raise SamplingError(f"A window of {geometry.window} codes cannot add {new} codes to {present}.")
    start = max(0, present + new - geometry.window)
    return Window(start, present - start, present + new - start)


def plan_level(geometry: WindowGeometry, total: int, present: int = 0) -> list[Window]:
    """Return the windows, in order, that extend a level from `present` codes to `total`; each adds codes.

    Raises:
        SamplingError: for a total below 1, for more codes present than the total, or for less than
            one window of an upsampler.
    """
    if total < 1:
        raise SamplingError(f"The length must be at least one code, found {total}. Sample a longer song.")
    if not 0 <= present <= total:
        raise SamplingError(f"{present} codes already exist, more than the {total} requested. Sample a longer song.")
    if present == total:
        return []
    if total < geometry.window:
        return [partial_window(geometry, present, total - present)]
    windows = []
    for start in window_starts(geometry, total):
        if present < start + geometry.window:
            windows.append(Window(start, present - start, geometry.window))
            present = start + geometry.window
    return windows
