"""Configurations and records as plain JSON data and back; reading is strict."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from jukebox_deploy.errors import ConfigError, JukeboxError

_Config = TypeVar("_Config")


def config_to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON data."""
    return dataclasses.asdict(config)


def config_from_dict(kind: type[_Config], data: Any, where: str = "config") -> _Config:
    """Build a configuration from JSON data; unknown or missing keys raise `ConfigError`."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected an object, found {type(data).__name__}.")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigError(f"{where}: unknown keys {unknown}; known are {sorted(fields)}.")
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    required -= {n for n, f in fields.items() if f.default_factory is not dataclasses.MISSING}
    if missing := sorted(required - set(data)):
        raise ConfigError(f"{where}: missing keys {missing}.")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except (ArithmeticError, LookupError, ValueError) as error:  # nobody has checked these numbers before
        raise ConfigError(f"{where}: numbers that cannot be ({error}).") from error


def read_record_file(
    kind: type[_Config], path: Path, expected: str | int, error: type[JukeboxError], advice: str
) -> _Config:
    """Read a JSON file of the expected `format`, which is one of its keys.

    Raises `error` for a file that is missing, damaged or of another format; for the last with advice.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise error(f"{path} is not a readable JSON document: {cause}") from cause
    found = data.get("format") if isinstance(data, dict) else None
    if found != expected:
        raise error(f"{path} has the format {found!r}, expected {expected!r}; {advice}.")
    try:
        return config_from_dict(kind, data, path.name)
    except ConfigError as cause:
        raise error(f"{path} is damaged: {cause}") from cause


def _value(hint: Any, value: Any, where: str) -> Any:
    """Convert one JSON value to the annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}.")
        return tuple(_value(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected an object, found {value!r}.")
        return {name: _value(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return config_from_dict(typing.cast(type[Any], hint), value, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value, where)
    return _plain(hint, value, where)


def _member(kind: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{where}: {value!r} is none of {[str(m) for m in kind]}.") from None


def _plain(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= 2**53:  # larger ones would be rounded
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, found {value!r}.")
    return value
