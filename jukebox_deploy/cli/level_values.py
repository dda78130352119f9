"""Options whose value applies to all levels of a model or to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from jukebox_deploy.jobs.requests.songs import LevelValue
from jukebox_deploy.runtime.song import LevelSettings


class LevelValueType(click.ParamType[LevelValue]):
    """`VALUE` for all levels or `LEVEL=VALUE` for one."""

    name = "[level=]value"

    def __init__(self, number: click.IntRange | click.FloatRange) -> None:
        self._number = number
        self._is_whole = isinstance(number, click.IntRange)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LevelValue:
        """Parse a value, as click requires."""
        level, _, number = value.rpartition("=")
        try:
            place = int(level) if level else None
            (int if self._is_whole else float)(number)
        except ValueError:
            kind = "a whole number" if self._is_whole else "a number"
            self.fail(f"{value!r} is neither {kind} nor LEVEL=VALUE, such as 2=1.", param, ctx)
        return LevelValue(place, self._number.convert(number, param, ctx))


def settings_options(levels: Sequence[LevelSettings], total_seconds: float | None = None) -> list[str]:
    """Return `sample` options for settings of levels (level 0 first) and a total length; defaults are left out."""
    usual = asdict(LevelSettings())
    options = [] if total_seconds is None else ["--total-seconds", str(total_seconds)]
    for level, settings in enumerate(levels):
        for name, value in asdict(settings).items():
            if value != usual[name]:
                options += [f"--{name.replace('_', '-')}", f"{level}={value}"]
    return options
