"""Configurations and records as JSON: what is written comes back, and what does not fit is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest

from jukebox_deploy.config import JukeboxConfig
from jukebox_deploy.config_json import config_from_dict, config_to_dict
from jukebox_deploy.errors import ConfigError
from jukebox_deploy.presets import PRESETS, preset


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    number: int
    optional: str | None = None


@dataclass(frozen=True)
class Outer:
    share: float
    colour: Colour
    sizes: tuple[int | str, ...]
    range: tuple[int, int, int]
    inner: Mapping[str, Inner]
    rest: Mapping[str, Any] = field(default_factory=dict)


OUTER = Outer(0.5, Colour.RED, (1, "B"), (1, 4, 16), MappingProxyType({"a": Inner(3)}), {"any": [None, {"thing": 1}]})
PLAIN = {
    "share": 0.5,
    "colour": "red",
    "sizes": [1, "B"],
    "range": [1, 4, 16],
    "inner": {"a": {"number": 3, "optional": None}},
    "rest": {"any": [None, {"thing": 1}]},
}


def test_plain_data_is_what_json_has() -> None:
    data = config_to_dict(OUTER)
    assert data == PLAIN == json.loads(json.dumps(data))
    assert type(data["colour"]) is str
    assert config_from_dict(Outer, data) == OUTER


@pytest.mark.parametrize("name", PRESETS)
def test_presets_come_back(name: str) -> None:
    assert config_from_dict(JukeboxConfig, json.loads(json.dumps(config_to_dict(preset(name))))) == preset(name)


def test_keys_with_defaults_may_be_missing() -> None:
    assert config_from_dict(Inner, {"number": 3}) == Inner(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "config: unknown keys extra; known are colour, inner, range, rest, share and sizes."),
        ({"share": "half"}, "config.share: expected float, found 'half'"),
        ({"share": True}, "config.share: expected float, found true."),
        ({"colour": "blue"}, "config.colour: 'blue' is none of red."),
        ({"sizes": "B"}, "config.sizes: expected a list, found 'B'"),
        ({"sizes": [1, 2.0]}, r"config.sizes\[1\]: expected int or str, found 2.0"),
        ({"sizes": [None]}, r"config.sizes\[0\]: expected int or str, found null."),
        ({"range": [1, 4]}, "config.range: expected 3 items, found 2."),
        ({"range": [1, 4, "16"]}, r"config.range\[2\]: expected int, found '16'"),
        ({"inner": []}, "config.inner: expected an object, found a list."),
        ({"inner": {"a": {}}}, "config.inner.a: missing keys number."),
        ({"inner": {"a": {"number": 1, "optional": 2}}}, "config.inner.a.optional: expected str, found 2"),
        ({"rest": None}, "config.rest: expected an object, found null."),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(Outer, {**PLAIN, **change})
