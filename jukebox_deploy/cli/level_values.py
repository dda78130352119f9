"""Options with a value for all levels of a model or for one of them."""

from __future__ import annotations

from typing import Any

import click

from jukebox_deploy.jobs.requests.songs import LevelValue


class LevelValueType(click.ParamType[LevelValue]):
    """`VALUE` for all levels or `LEVEL=VALUE` for one."""

    name = "[level=]value"

    def __init__(self, number: type[int] | type[float]) -> None:
        self._number = number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LevelValue:
        """See click."""
        level, _, number = value.rpartition("=")
        try:
            return LevelValue(int(level) if level else None, self._number(number))
        except ValueError:
            kind = "a whole number" if self._number is int else "a number"
            self.fail(f"{value!r} is neither {kind} nor LEVEL=VALUE, such as 2=1.", param, ctx)
