"""Conversion of configurations and records to plain JSON data and back; reading is strict."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from jukebox_deploy.errors import ConfigError, JukeboxError
from jukebox_deploy.listing import words_of

_Config = TypeVar("_Config")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Convert a configuration to plain JSON data."""
    return {field.name: _plain_data(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain_data(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Mapping):
        return {name: _plain_data(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_data(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def config_from_dict(kind: type[_Config], data: Any, where: str = "config") -> _Config:
    """Build a configuration from JSON data. Raises `ConfigError` for unknown or missing keys and invalid values."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected an object, found {type(data).__name__}.")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    if unknown := sorted(set(data) - set(fields)):
        raise ConfigError(f"{where}: unknown keys {words_of(unknown)}; known are {words_of(sorted(fields))}.")
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    required -= {n for n, f in fields.items() if f.default_factory is not dataclasses.MISSING}
    if missing := sorted(required - set(data)):
        raise ConfigError(f"{where}: missing keys {words_of(missing)}.")
    hints = _type_hints(kind)  # type: ignore[arg-type]  # mypy does not know that classes are hashable
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in data.items()}
    try:
        return kind(**values)
    except (ArithmeticError, LookupError, ValueError) as error:  # numbers that the class's own checks compute with
        raise ConfigError(f"{where}: invalid numbers ({error}).") from error


def read_record_file(
    kind: type[_Config],
    path: Path,
    expected: str | int,
    error: type[JukeboxError],
    advice: str,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> _Config:
    """Read a JSON file whose key `format` has the expected value.

    `renamed`: keys of older files, in objects at any depth, and their names of today. Raises `error` for a file that is
    missing, damaged or of another format; `advice` ends the message about the format.
    """

    def named_as_today(item: dict[str, Any]) -> dict[str, Any]:
        return {renamed.get(key, key): value for key, value in item.items()}

    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_hook=named_as_today)
    except (OSError, ValueError) as cause:
        raise error(f"{path} is not a readable JSON document: {cause}") from cause
    found = data.get("format") if isinstance(data, dict) else None
    if found != expected:
        raise error(f"{path} has the format {found!r}, expected {expected!r}; {advice}.")
    try:
        return config_from_dict(kind, data, path.name)
    except ConfigError as cause:
        raise error(f"{path} is damaged: {cause}") from cause


def json_words(value: Any) -> str:
    """Say what a value from a JSON file is: plain values as such, objects and lists without what they hold."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


_type_hints = functools.cache(typing.get_type_hints)  # a graph has hundreds of tensors


def _value(hint: Any, value: Any, where: str) -> Any:
    """Convert one JSON value to the annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(arguments, value, where)
    if origin is tuple:
        return _items(arguments, value, where)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected an object, found {json_words(value)}.")
        return {name: _value(arguments[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return config_from_dict(typing.cast(type[Any], hint), value, where)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value, where)
    return _plain(hint, value, where)


def _one_of(kinds: Sequence[Any], value: Any, where: str) -> Any:
    """Convert a value annotated as a union: of several plain types, or of one type of any kind and `None`."""
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) == 1:
        return _value(others[0], value, where)
    if type(value) not in others:
        expected = " or ".join(kind.__name__ for kind in others)
        raise ConfigError(f"{where}: expected {expected}, found {json_words(value)}.")
    return value


def _items(kinds: Sequence[Any], value: Any, where: str) -> tuple[Any, ...]:
    """Convert a list of any length (`tuple[int, ...]`), or of as many items as there are types."""
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{where}: expected a list, found {json_words(value)}.")
    if kinds[-1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(value) != len(kinds):
        raise ConfigError(f"{where}: expected {len(kinds)} items, found {len(value)}.")
    return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _member(kind: type[StrEnum], value: Any, where: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"{where}: {json_words(value)} is none of {words_of(kind)}.") from None


def _plain(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= 2**53:  # larger integers would be rounded
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: expected {kind.__name__}, found {json_words(value)}.")
    return value
