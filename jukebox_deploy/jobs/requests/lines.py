"""Parsing of a line of a song file, with clear errors for valid JSON that cannot be intended."""

from __future__ import annotations

import json
from typing import Any

from jukebox_deploy.errors import SamplingError

_DIGITS = 25
"""Most digits of a whole number; seeds have at most 20."""
_SHOWN = 60  # characters of a line quoted in a message


def parse_line(line: str) -> dict[str, Any]:
    """Parse a line as a JSON object. Raises `SamplingError` if it is something else."""
    try:
        fields = json.loads(line, object_pairs_hook=_object, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise SamplingError(f"not JSON ({error.msg} at column {error.colno}).") from error
    except RecursionError:
        raise SamplingError("brackets within brackets, too many of them; expected one JSON object.") from None
    if not isinstance(fields, dict):
        shown = line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
        raise SamplingError(f'expected an object such as {{"artist": "name", "seconds": 20}}, found {shown}')
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SamplingError(f"the key {twice!r} is there more than once; keep one.")
    return fields


def _whole_number(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise SamplingError(f"a number of {len(digits)} digits cannot be; give a smaller one.")
    return int(digits)
